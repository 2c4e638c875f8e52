"""A lookup falls back exact, nearest length, nearest GPU, nothing; and says which it was."""

from __future__ import annotations

from database_examples import problem, trial

from attngen.config import Config
from attngen.database import open_database, shipped, write_tunings
from attngen.target import TARGETS

H100, A100, MI300X = TARGETS["h100"], TARGETS["a100"], TARGETS["mi300x"]


def chosen(db, at=None, target=H100, **options):
    choice = db.lookup(at or problem(), target, **options)
    return choice and (choice.trial.median_ms, choice.step)


def test_each_step_gives_way_to_the_one_before(db):
    assert chosen(db) is None
    db.record(trial(5, "mi300x"))
    db.record(trial(5, "mi210"))
    assert chosen(db) is None  # another maker's warps are no guide, nor is a GPU that we know nothing of
    db.record(trial(4, "a100"))
    assert chosen(db) == (4, "nearest GPU")
    db.record(trial(3, "h200"))
    assert chosen(db) == (3, "nearest GPU")
    db.record(trial(9, at=problem(seq=512)))
    assert chosen(db) == (9, "nearest length")
    db.record(trial(8, at=problem(seq=4096)))
    assert chosen(db) == (8, "nearest length")
    db.record(trial(7, at=problem(seq=8000)))
    assert chosen(db) == (7, "exact")  # the same bucket
    db.record(trial(6.5, at=problem()))
    assert chosen(db) == (6.5, "exact")
    assert chosen(db, at=problem(digest="ffffffffffff")) is None


def test_length_is_judged_in_octaves_and_batch_counts_less(db):
    db.record_all([trial(1, at=problem(seq=1024)), trial(2, at=problem(seq=32768)), trial(3, at=problem(batch=64))])
    assert chosen(db, problem(seq=2048)) == (1, "nearest length")
    assert chosen(db, problem(seq=16384)) == (2, "nearest length")
    assert chosen(db, problem(batch=1)) == (3, "nearest length")


def test_measured_beats_model_and_a_model_beats_another_architecture(db):
    db.record(trial(9, "a100"))
    db.record(trial(0.1, source="model"))
    assert chosen(db) == (0.1, "exact")
    db.record(trial(8, "h200"))
    assert chosen(db) == (8, "nearest GPU")
    db.record(trial(7, at=problem(seq=1024)))
    assert chosen(db) == (7, "nearest length")
    db.record(trial(6))
    assert chosen(db) == (6, "exact")
    assert db.best(problem(), H100).median_ms == 6


def test_finalists_are_judged_by_their_last_time(db):
    lucky, steady = Config(BLOCK_M=64), Config(BLOCK_M=128)
    db.record_all([trial(1.0, config=lucky), trial(1.1, config=steady)])
    assert db.best(problem(), H100).config == lucky
    db.record_all([trial(1.2, config=lucky, final=True, age=1), trial(1.15, config=steady, final=True, age=1)])
    assert db.best(problem(), H100).config == steady


def test_a_time_beside_rivals_beats_a_shorter_one_of_its_own(db):
    raced, alone = Config(BLOCK_M=64), Config(BLOCK_M=128)
    db.record_all([trial(1.2, config=raced, final=True), trial(1.1, config=alone, age=1)])
    assert db.best(problem(), H100).config == raced


def test_a_config_found_wrong_is_out(db):
    bad = Config(BLOCK_M=64)
    db.record_all([trial(1.0, config=bad), trial(2.0), trial(config=bad, status="wrong", median_ms=None)])
    assert chosen(db) == (2, "exact")
    assert db.best(problem(), H100).median_ms == 2


def test_the_same_templates_and_triton_come_first(db):
    db.record_all([trial(1, template="dead0000"), trial(2)])
    assert chosen(db, template=lambda config: "fedcba98", triton="3.6.0") == (2, "exact")
    assert chosen(db, template=lambda config: "dead0000", triton="3.6.0") == (1, "exact")
    older = db.lookup(problem(), H100, template=lambda config: "beef0000", triton="3.7.0")
    assert older.trial.median_ms == 1
    assert older.provenance == ("tuned on h100 (measured, 1 ms), this problem, from other templates and triton 3.6.0")


def test_templates_of_one_schedule_do_not_age_the_tunings_of_another(db):
    """The faster trial is of a schedule whose templates have changed since; the other's are today's."""
    fast, steady = Config(schedule="hopper", BLOCK_M=128), Config(schedule="portable", BLOCK_M=128)
    db.record_all([trial(1, config=fast, template="aaaa"), trial(2, config=steady, template="bbbb")])

    def now(**digests):
        choice = db.lookup(problem(), H100, template=lambda config: digests[config["schedule"]], triton="3.6.0")
        return choice.config["schedule"], "other templates" in choice.provenance

    assert now(hopper="aaaa", portable="bbbb") == ("hopper", False)
    assert now(hopper="cccc", portable="bbbb") == ("portable", False)
    assert now(hopper="aaaa", portable="cccc") == ("hopper", False)
    assert now(hopper="cccc", portable="cccc") == ("hopper", True)


def test_configs_that_cannot_run_here_are_passed_over(db):
    db.record_all([trial(1, config=Config(BLOCK_M=256)), trial(2), trial(3, at=problem(seq=1024))])
    assert chosen(db, accept=lambda config: config["BLOCK_M"] < 256) == (2, "exact")
    assert chosen(db, accept=lambda config: "tag" in config and config["tag"] == "ms3") == (3, "nearest length")
    assert chosen(db, accept=lambda config: False) is None


def test_provenance_is_a_sentence(db):
    db.record(trial(0.2414, "h200", at=problem(seq=4096)))
    words = db.lookup(problem(), H100).provenance
    assert words == "tuned on h200 (measured, 0.241 ms), nearest length (batch 8, 4096 x 4096), nearest GPU"
    db.record(trial(0.5, source="model"))
    assert db.lookup(problem(), A100).provenance.startswith("tuned on h200")
    assert [c.provenance.split(",")[0] for c in db.lookup_all(problem(), H100)] == [
        "tuned on h200 (measured",
        "chosen for h100 (cost model",
    ]


def test_the_users_own_lie_over_the_shipped(tmp_path, monkeypatch):
    (tmp_path / "h100.yaml").write_text(write_tunings("h100", [trial(1), trial(2, at=problem(seq=1024))]))
    monkeypatch.setattr(shipped, "resource_dir", lambda name: tmp_path)
    shipped.shipped_targets.cache_clear()
    shipped.shipped_trials.cache_clear()
    try:
        db = open_database(str(tmp_path / "user.sqlite"))
        choice = db.lookup(problem(), H100)
        assert choice.shipped and choice.provenance.endswith("this problem, shipped with attngen")
        assert not db.trials() and len(db.trials(shipped=True)) == 2 and db.targets() == ["h100"]
        db.record(trial(1.5))
        assert chosen(db) == (1.5, "exact")
        assert chosen(db, problem(seq=1024)) == (2, "exact")
        db.record(trial(2.5, at=problem(seq=1000)))
        assert chosen(db, problem(seq=1024)) == (2.5, "exact")  # the same bucket, and the user's own
        assert chosen(db, target=TARGETS["h200"]) == (1.5, "nearest GPU")
    finally:
        shipped.shipped_targets.cache_clear()
        shipped.shipped_trials.cache_clear()
