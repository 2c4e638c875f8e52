"""A run survives its candidates, keeps every trial, and takes up what an earlier run left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest
from fake_bench import PARAMETERS, PROBLEM, FakeBench, Parameter, cost, every_config, fake_task, template_of

from attngen.config import Config
from attngen.database import Versions, open_database
from attngen.target import TARGETS
from attngen.tuner import Team, TuningError
from attngen.tuner.loop import Limits, run

SMALL = (
    Parameter("BLOCK_M", (32, 64)),
    Parameter("BLOCK_N", (32, 64)),
    Parameter("num_warps", (4,)),
    Parameter("num_stages", (1, 2)),
    Parameter("loads", ("pointer",)),
    Parameter("SPLIT_MASKS", (True, False)),
)


@pytest.fixture(scope="module")
def team():
    with Team(2) as team:
        yield team


def test_a_small_space_is_swept_and_the_best_found(db, team):
    configs = every_config(SMALL)
    result = run(fake_task(parameters=SMALL), db, limits=Limits(trials=100), team=team)
    best = min(configs, key=cost)
    assert (result.stopped, result.tried, result.known, result.space) == ("exhausted", 16, 0, 16)
    assert result.best.config == best and result.best.final and result.best.median_ms == pytest.approx(cost(best), 1e-5)
    rows = db.trials(PROBLEM)
    assert {t.config for t in rows} == set(configs)
    assert Counter(t.final for t in rows)[False] == 16
    assert result.default is not None and result.speedup >= 1
    first = rows[0]
    assert (first.status, first.spec, first.target, first.registers, first.study) == (
        "ok",
        "made-up",
        "h100",
        128,
        result.study,
    )
    assert db.lookup(PROBLEM, TARGETS["h100"]).config == best
    assert set(db.kernels("0123456789abcdef")) == {best.label()}  # compiled, the winner alone is kept


def test_every_kind_of_trouble_is_a_row_and_not_the_end(db, team):
    configs = every_config(SMALL)
    what = ["crash", "error", "wrong", "compile crash", "compile error", "spills", "shared"]
    trouble = tuple((config.label(), word) for config, word in zip(configs, what, strict=False))
    result = run(fake_task(FakeBench(trouble=trouble), SMALL), db, limits=Limits(), team=team)
    status = {t.config.label(): (t.status, t.error) for t in db.trials(PROBLEM) if not t.final}
    found = [status[label] for label, _ in trouble]
    assert [s for s, _ in found] == [
        "crashed",
        "crashed",
        "wrong",
        "compile_error",
        "compile_error",
        "spilled",
        "too_large",
    ]
    assert "signal 9" in found[0][1] and "illegal memory access" in found[1][1]
    assert found[3][1].startswith("compiling: the process ended with signal 11")
    assert found[4][1] == "compiling: no such instruction at line 3"
    assert found[6][1] == "1000000 bytes of shared memory; h100 has 232448"
    assert result.tried == 16 and sum(n for _, n in result.failures) == 7
    good = [c for c in configs if c.label() not in dict(trouble)]
    assert result.best.config == min(good, key=cost)


def test_what_hangs_is_ended(db):
    configs = every_config(SMALL)[:5]
    trouble = ((configs[0].label(), "hang"), (configs[1].label(), "compile hang"))
    limits = Limits(compile_seconds=0.3, measure_seconds=0.3)
    task = fake_task(FakeBench(trouble=trouble), SMALL, configs)
    with Team(1) as team:
        result = run(task, db, limits=limits, team=team)
    status = {t.config: t.status for t in db.trials(PROBLEM) if not t.final}
    assert [status[c] for c in configs] == ["timeout", "timeout", "ok", "ok", "ok"]
    assert result.best is not None


def test_an_earlier_run_is_taken_up_and_not_repeated(db, team, tmp_path):
    log = tmp_path / "measured"
    task = fake_task(FakeBench(log=str(log)))
    first = run(task, db, limits=Limits(trials=20), team=team)
    second = run(task, db, limits=Limits(trials=30), team=team)
    assert (first.tried, second.known, second.tried) == (20, 20, 10)
    measured = log.read_text().splitlines()
    assert len(measured) == len(set(measured)) == 30
    third = run(task, db, limits=Limits(trials=30), team=team)
    assert (third.tried, third.known, third.best) == (0, 30, second.best)


def test_a_crash_gets_one_more_chance(db, team):
    configs = every_config(SMALL)
    trouble = ((configs[0].label(), "crash"),)
    for known in (0, 15, 16):  # the crash of the first run may have been the machine's
        result = run(fake_task(FakeBench(trouble=trouble), SMALL), db, limits=Limits(), team=team)
        assert result.known == known
    assert [t.config for t in db.trials(status="crashed")] == [configs[0]] * 2


def test_a_worker_that_dies_idle_is_started_again(db, team):
    run(fake_task(parameters=SMALL), db, limits=Limits(trials=2), team=team)
    for worker in team.workers:
        worker._process.kill()
        worker._process.wait()
    result = run(fake_task(parameters=SMALL), db, limits=Limits(trials=6), team=team)
    assert (result.known, result.tried, result.failures) == (2, 4, ())


def test_results_of_other_templates_are_seeds_and_measured_again(db, team):
    old = fake_task(template=template_of("00000000"))
    first = run(old, db, limits=Limits(trials=25), team=team)
    result = run(fake_task(), db, limits=Limits(trials=4), team=team)
    assert (result.known, result.tried) == (0, 4)
    assert result.best.config == first.best.config and result.best.template == "fedcba98"


def test_the_nearest_gpu_and_length_seed_the_search(db, team):
    best = min(every_config(), key=cost)
    known = run(fake_task(configs=[best], target=TARGETS["h200"], default=best), db, limits=Limits(), team=team)
    assert known.best.config == best
    result = run(fake_task(), db, limits=Limits(trials=2), team=team)
    assert result.tried == 2 and result.best.config == best


def test_without_a_gpu_the_model_ranks_and_gives_way(db, team):
    task = fake_task(source="model", device="")
    result = run(task, db, limits=Limits(trials=12), team=team)
    assert {t.source for t in db.trials(PROBLEM)} == {"model"} and result.finalists == ()
    assert db.lookup(PROBLEM, TARGETS["h100"]).provenance.startswith("chosen for h100 (cost model")
    measured = run(fake_task(), db, limits=Limits(trials=3), team=team)
    assert measured.known == 0
    assert db.lookup(PROBLEM, TARGETS["h100"]).trial.source == "measured"


def test_minutes_bound_a_run(db, team):
    task = fake_task(FakeBench(measure_seconds=0.02))
    team.assign(task.bench)
    started = time.monotonic()
    result = run(task, db, limits=Limits(minutes=2 / 60), team=team)
    assert result.stopped == "minutes" and 0 < result.tried < len(every_config())
    assert time.monotonic() - started < 6 and result.best.final


def test_the_default_is_timed_however_short_the_run(db, team):
    """A kernel that takes long to compile is not beaten by those that merely came first."""
    default = min(every_config(), key=cost)
    bench = FakeBench(trouble=((default.label(), "compile slowly"),))
    team.assign(bench)
    result = run(fake_task(bench, default=default), db, limits=Limits(minutes=1 / 60), team=team)
    assert result.stopped == "minutes" and result.default is not None and result.best.config == default


def test_progress_is_reported(db, team):
    seen = []
    run(fake_task(), db, limits=Limits(trials=10), team=team, report=seen.append)
    assert (seen[-1].tried, seen[-1].total) == (10, 10) and seen[-1].best is not None
    assert any("finalists" in p.doing for p in seen)


def test_a_gpu_that_cannot_be_used_is_one_error(db):
    with Team(1) as team, pytest.raises(TuningError, match="the GPU's worker cannot start: RuntimeError: no GPU here"):
        run(fake_task(FakeBench(unfit_to_prepare=True)), db, limits=Limits(trials=5), team=team)
    assert db.trials() == []


def test_a_gpu_that_breaks_is_one_error(db, team):
    configs = every_config()
    trouble = tuple((config.label(), "error") for config in configs)
    with pytest.raises(TuningError, match="8 candidates in a row crashed"):
        run(fake_task(FakeBench(trouble=trouble)), db, limits=Limits(), team=team)
    assert len(db.trials(status="crashed")) == 8


RUN = """
    import sys
    sys.path.insert(0, {here!r})
    from fake_bench import FakeBench, fake_task
    from attngen.database import open_database
    from attngen.tuner.loop import Limits, run
    task = fake_task(FakeBench(measure_seconds={measure_seconds}, log={log!r}))
    print(run(task, open_database({path!r}, shipped=False), limits=Limits(trials=40), workers=1).known)
"""


def start_run(path, log, measure_seconds=0.03):
    values = dict(here=os.path.dirname(__file__), path=str(path), log=str(log), measure_seconds=measure_seconds)
    code = textwrap.dedent(RUN).format(**values)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    path, log = tmp_path / "t.sqlite", tmp_path / "log"
    first = start_run(path, log)
    db = open_database(str(path), shipped=False)
    deadline = time.monotonic() + 60
    while len(db.trials()) < 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait(timeout=30)
    kept = len(db.trials())
    assert 8 <= kept < 40
    second = start_run(path, log)
    assert int(second.communicate(timeout=60)[0]) == kept
    rows = [t for t in db.trials() if not t.final]
    assert len(rows) == len({t.config for t in rows}) == 40
    measured = log.read_text().splitlines()
    assert len(measured) - len(set(measured)) <= 1  # at most the one that was on the GPU at the kill


def running():
    """(pid, parent) of every process but the dead that nobody has asked after."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                yield int(path.parent.name), int(parent)


def children_of(process):
    return {pid for pid, parent in running() if parent == process.pid}


def gone(pids):
    deadline = time.monotonic() + 5
    while (left := pids & {pid for pid, _ in running()}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not left


def test_workers_end_with_their_parent_even_when_they_hang(tmp_path):
    log = tmp_path / "log"
    process = start_run(tmp_path / "t.sqlite", log, measure_seconds=3600)
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    children = children_of(process)
    process.kill()
    process.wait(timeout=30)
    assert len(children) == 2 and gone(children)


def test_ctrl_c_leaves_a_whole_database_and_no_processes(tmp_path):
    path = tmp_path / "t.sqlite"
    process = start_run(path, tmp_path / "log")
    db = open_database(str(path), shipped=False)
    deadline = time.monotonic() + 60
    while len(db.trials()) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    children = children_of(process)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    assert len(db.trials()) >= 3 and all(t.status == "ok" for t in db.trials())
    assert len(children) == 2 and gone(children)


def test_a_config_may_have_values_outside_the_space(db, team):
    """A parameter with one choice need not be searched; the config still carries it."""
    configs = [Config(**config.as_dict(), dtype="bfloat16") for config in every_config(SMALL)]
    result = run(fake_task(parameters=SMALL, configs=configs), db, limits=Limits(trials=3), team=team)
    assert result.best.config["dtype"] == "bfloat16"


def test_versions_decide_what_is_known(db, team):
    run(fake_task(), db, limits=Limits(trials=3), team=team)
    later = run(fake_task(versions=Versions(triton="3.7.0")), db, limits=Limits(trials=3), team=team)
    assert later.known == 0 and later.tried == 3


def test_the_landscape_is_what_the_tests_say():
    assert len(every_config(PARAMETERS)) == 912
