"""Selections at real sizes, of both schedules, against a stable sort: the same keys."""

import pytest
import torch

from attngen.op.select import SelectLauncher
from attngen.plan.space import default_config
from attngen.problem import Problem
from attngen.target import detect
from tests.op.select_cases import plan_of

pytestmark = pytest.mark.gpu
INF, NAN = float("inf"), float("nan")


def stable(logits, key_first, key_end, top_k):
    """All rows at once: what is outside a row's bounds comes after all that is inside."""
    place = torch.arange(logits.shape[1], device=logits.device)
    inside = (place >= key_first[:, None]) & (place < key_end[:, None])
    ranked = torch.sort(logits.float(), dim=1, descending=True, stable=True).indices
    there = inside.gather(1, ranked)
    ranked = ranked.gather(1, torch.sort(~there, dim=1, stable=True).indices[:, :top_k])
    ranked = ranked.masked_fill(torch.arange(top_k, device=logits.device) >= inside.sum(1)[:, None], logits.shape[1])
    ranked = ranked.sort(1).values
    return ranked.masked_fill(ranked == logits.shape[1], -1).int()


def schedules():
    target = detect()
    return ["portable", "hopper"] if target is not None and target.arch == 90 else ["portable"]


def launcher(schedule, top_k, rows, **fields):
    plan = plan_of(top_k, **fields)
    config = default_config(
        plan, detect(), Problem("select", "", 1, rows, 1), able=lambda config: config["schedule"] == schedule
    )
    return SelectLauncher(plan, config)


def rows_of(name, rows, columns):
    generator = torch.Generator("cuda").manual_seed(1)
    x = torch.randn(rows, columns, device="cuda", generator=generator)
    some = torch.rand(rows, columns, device="cuda", generator=generator)
    if name == "zeros":
        return torch.where(some < 0.9, 0.0, x.abs())
    if name == "zeros, 1% above":
        return torch.where(some < 0.99, 0.0, x.abs())
    if name == "zeros, few above":
        return torch.where(some < 0.995, -0.0, x)
    if name == "ties":
        return (x * 8).round() / 8
    if name == "one value":
        return torch.full_like(x, -2.5)
    if name == "growing":
        return x.sort(1).values
    if name == "subnormal":
        return x * 1e-42
    if name == "not finite":
        return x.masked_fill(some < 0.01, NAN).masked_fill(some > 0.6, -INF).masked_fill((some - 0.5).abs() < 0.01, INF)
    if name == "NaN":
        return torch.full_like(x, NAN)
    if name == "the largest last":
        x[:, -3000:] += 10.0
    if name == "the largest where no sample is":
        x[:, 9::32] += 10.0
    return x


NAMES = ("normal", "zeros", "zeros, few above", "ties", "one value", "growing", "subnormal", "not finite", "NaN")
NAMES += ("zeros, 1% above", "the largest last", "the largest where no sample is")


@pytest.mark.parametrize("schedule", ["portable", "hopper"])
@pytest.mark.parametrize("top_k", [1, 64, 2048, 8192])
@pytest.mark.parametrize("name", NAMES)
def test_rows(name, top_k, schedule):
    if schedule not in schedules():
        pytest.skip("for another GPU")
    for rows, columns in ((600, 8192), (40, 32768 + 48)):
        logits = rows_of(name, rows, columns)
        key_end = torch.arange(columns - rows + 1, columns + 1, device="cuda", dtype=torch.int32)
        key_first = torch.zeros_like(key_end)
        key_first[1::3], key_first[2::5], key_end[::7] = 5, 4096, 3000
        result = launcher(schedule, top_k, rows)(logits, key_first, key_end)
        assert torch.equal(result, stable(logits, key_first, key_end, top_k)), (rows, columns)


@pytest.mark.parametrize("schedule", ["portable", "hopper"])
def test_rows_do_not_depend_on_their_number(schedule):
    if schedule not in schedules():
        pytest.skip("for another GPU")
    logits = rows_of("ties", 1024, 16384).bfloat16()
    key_first, key_end = (torch.full((1024,), n, dtype=torch.int32, device="cuda") for n in (0, 16384))
    whole = launcher(schedule, 512, 1024, logits="bfloat16")(logits, key_first, key_end)
    for rows in (1, 17, 300):
        part = launcher(schedule, 512, rows, logits="bfloat16")(logits[:rows], key_first[:rows], key_end[:rows])
        assert torch.equal(part, whole[:rows])
    assert torch.equal(whole, stable(logits, key_first, key_end, 512))


def test_streams_and_graphs():
    schedule = schedules()[-1]
    logits = rows_of("normal", 300, 20000)
    bounds = [torch.full((300,), n, dtype=torch.int32, device="cuda") for n in (0, 20000)]
    select, out = launcher(schedule, 2048, 300), torch.empty(300, 2048, dtype=torch.int32, device="cuda")
    wanted = select(logits, *bounds)
    streams, results = [torch.cuda.Stream() for _ in range(4)], []
    torch.cuda.synchronize()
    for stream in streams * 4:
        with torch.cuda.stream(stream):
            results.append(select(logits, *bounds))
    torch.cuda.synchronize()
    assert all(torch.equal(result, wanted) for result in results)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        select(logits, *bounds, out=out)
    for _ in range(3):
        logits.copy_(logits.roll(7, 1))
        graph.replay()
    assert torch.equal(out, stable(logits, *bounds, 2048))


def test_more_than_two_billion_elements():
    """The last of many rows, and one row that is longer than the list by far."""
    if torch.cuda.mem_get_info()[0] < 16e9:
        pytest.skip("needs 16 GB")
    schedule = schedules()[-1]
    for shape in ((4200, 524288), (2, 2**30 + 64)):
        logits = torch.zeros(shape, dtype=torch.bfloat16, device="cuda")
        logits[-1, -100:] = 1.0
        logits[-1, 5000:5100] = -1.0
        bounds = [torch.full(shape[:1], n, dtype=torch.int32, device="cuda") for n in (0, shape[1])]
        result = launcher(schedule, 1000, shape[0], logits="bfloat16")(logits, *bounds)
        expected = torch.cat([torch.arange(900), torch.arange(shape[1] - 100, shape[1])]).int().cuda()
        assert torch.equal(result[-1], expected)
        assert torch.equal(result[0], torch.arange(1000, dtype=torch.int32, device="cuda"))
