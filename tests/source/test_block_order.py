"""Which block of keys each program of the fused backward kernel has: all of them, once, none before one that it waits
for."""

import ast
from types import SimpleNamespace

import pytest

from attngen.plan.backward import plan_backward
from attngen.plan.space import default_config
from attngen.source import render
from attngen.spec.model import Window
from attngen.target import get_target
from tests.op.cases import kind_of

FIELDS = {
    "window": {"causal": True, "window": Window(511, 0)},
    "window both ways": {"window": Window(400, 200)},
    "causal": {"causal": True},
    "every key": {},
}


def located(name, heads, batch, seq, **changes):
    """(sequence, KV head, block of keys) of every program, in their order: ``locate``, run as Python."""
    plan = plan_backward(kind_of(heads, (128, 128), **FIELDS[name])).fused
    config = default_config(plan, get_target("h100")).replace(**changes)
    module = ast.parse(render(plan, config).text)
    keep = [n for n in module.body if isinstance(n, ast.FunctionDef) and n.name == "locate"]
    constants = [n for n in module.body if isinstance(n, ast.Assign | ast.AnnAssign)]
    blocks = -(-seq // int(config["BLOCK_N"]))
    programs = blocks * heads[1] * batch
    now = [0]
    names = {
        "gl": SimpleNamespace(
            constexpr=lambda value: value,
            cdiv=lambda a, b: -(-a // b),
            maximum=max,
            minimum=min,
            where=lambda condition, yes, no: yes if condition else no,
            program_id=lambda axis: now[0],
            num_programs=lambda axis: programs,
        )
    }
    for node in constants:
        try:
            exec(compile(ast.Module([node], []), "constants", "exec"), names)
        except (NameError, AttributeError):  # layouts
            continue
    keep[0].decorator_list = []
    exec(compile(ast.Module(keep, []), "locate", "exec"), names)
    found = []
    for now[0] in range(programs):
        sequence, head, block_key, *_ = names["locate"](heads[0], config["HEADS_TOGETHER"], seq, seq, None, None)
        found.append((sequence, head, block_key // int(config["BLOCK_N"])))
    return found


@pytest.mark.parametrize("changes", [{}, {"HEADS_TOGETHER": 3, "BLOCKS_TOGETHER": 2}, {"BLOCKS_TOGETHER": 32}], ids=str)
@pytest.mark.parametrize(("heads", "batch", "seq"), [((4, 2), 3, 1300), ((16, 16), 1, 6000), ((1, 1), 1, 100)], ids=str)
@pytest.mark.parametrize("name", FIELDS)
def test_every_block_after_the_one_before_it(name, heads, batch, seq, changes):
    found = located(name, heads, batch, seq, **changes)
    blocks = -(-seq // 128)
    every = [(s, head, block) for s in range(batch) for head in range(heads[1]) for block in range(blocks)]
    assert sorted(found) == every
    place = {one: n for n, one in enumerate(found)}
    assert all(place[s, head, block - 1] < place[s, head, block] for s, head, block in every if block)


def test_blocks_of_a_head_begin_one_after_another():
    found = located("window", (8, 8), 1, 128 * 40, HEADS_TOGETHER=4, BLOCKS_TOGETHER=16)
    assert found[:17] == [(0, 0, block) for block in range(16)] + [(0, 1, 0)]
    assert found[4 * 32 : 4 * 32 + 5] == [(0, head, 32) for head in range(4)] + [(0, 0, 33)]  # side by side
