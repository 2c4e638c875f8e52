"""Tunings as text: the same every time, whole after a round trip, and refused unless plain."""

from __future__ import annotations

import pytest
from database_examples import problem, trial
from hypothesis import example, given
from hypothesis import strategies as st

from attngen.config import Config
from attngen.database import open_database, read_tunings, write_tunings
from attngen.database.shipped import shipped_targets, shipped_trials
from attngen.errors import SpecError
from attngen.target import TARGETS

GOOD = """\
format: 1
target: h100
tunings:
- kernel: forward
  digest: 0123456789ab
  batch: 8
  seq_q: 8192
  seq_k: 8192
  config: {BLOCK_M: 128, loads: descriptor, packed: true, splits: null}
  status: ok
  source: measured
  median_ms: 0.241
  created: 2026-01-31T12:00:00Z
"""


def test_the_example_is_read():
    (found,) = read_tunings(GOOD)
    assert found.config == Config(BLOCK_M=128, loads="descriptor", packed=True, splits=None)
    assert (found.problem, found.target, found.median_ms) == (problem(), "h100", 0.241)


configs = st.dictionaries(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**31) + 1, 2**31 - 1),
        st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,8}", fullmatch=True),
    ),
    max_size=5,
).map(Config.from_dict)
words = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=20)


@given(configs, words, words, st.floats(1e-6, 1e6))
@example(Config(), "...", "0...", 1.0)
def test_a_round_trip_loses_nothing(config, kind, description, ms):
    written = trial(ms, config=config, kind=kind, description=description)
    text = write_tunings("h100", [written])
    assert read_tunings(text) == [written]
    assert read_tunings(text)[0].fingerprint() == written.fingerprint()


def test_the_order_of_trials_does_not_show():
    trials = [trial(2), trial(1), trial(3, at=problem(seq=64))]
    assert write_tunings("h100", trials) == write_tunings("h100", trials[::-1])


def test_export_is_the_best_of_each_problem_and_imports_again(db, tmp_path):
    db.record_all([trial(1), trial(2), trial(3, at=problem(seq=64)), trial(4, "a100")])
    texts = db.export()
    assert list(texts) == ["a100", "h100"]
    assert [t.median_ms for t in read_tunings(texts["h100"])] == [3, 1]
    assert len(read_tunings(db.export(everything=True)["h100"])) == 3
    copy = open_database(str(tmp_path / "copy.sqlite"), shipped=False)
    assert copy.import_text(texts["h100"]) == 2
    assert copy.import_text(texts["h100"]) == 0
    assert db.import_text(texts["h100"]) == 0


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("format: 1", "format: 2", "1:9: format 2 is not known; this attngen reads format 1"),
        ("format: 1\n", "", "1:1: field 'format' is missing"),
        ("target: h100", "target: ../h100", "2:9: '../h100' is not a target's name"),
        ("  digest: 0123456789ab\n", "", "4:3: field 'digest' is missing"),
        ("digest: 0123456789ab", "digest: xyz", "5:11: 'xyz' is not a kind's digest"),
        ("batch: 8", "batch: 0", "6:10: '0' is not a whole number from 1"),
        ("batch: 8", "batch: true", "6:10: 'true' is not a whole number"),
        ("batch: 8", "bach: 8", "6:3: unknown field 'bach'; did you mean 'batch'?"),
        ("batch: 8", "batch: 8\n  batch: 9", "7:3: field 'batch' is given twice"),
        ("BLOCK_M: 128", "BLOCK_M: 1.5", "9:11: config value BLOCK_M=1.5 must be"),
        ("BLOCK_M: 128", "BLOCK_M: [1]", "9:21: not a plain value"),
        ("BLOCK_M: 128", "BLOCK_M: 99999999999", "must be an int of 32 bits"),
        ("BLOCK_M: 128", "BLOCK M: 128", "config name 'BLOCK M' is not a plain identifier"),
        ("loads: descriptor", "loads: '__import__(\"os\")'", "must be an int of 32 bits, a plain word"),
        ("loads: descriptor", "BLOCK_M: 3", "config value 'BLOCK_M' is given twice"),
        ("loads: descriptor", "loads: !!python/name:os.system", "9:33: tags, anchors and aliases are not allowed"),
        ("loads: descriptor", "loads: &a x, more: *a", "tags, anchors and aliases are not allowed"),
        ("status: ok", "status: okay", "10:11: 'okay' is not known here; did you mean 'ok'?"),
        ("source: measured", "source: guessed", "'guessed' is not known here"),
        ("median_ms: 0.241", "median_ms: .nan", "is not a finite number"),
        ("median_ms: 0.241", "median_ms: -1", "is not a finite number"),
        ("  median_ms: 0.241\n", "", "a tuning that is ok needs its median_ms"),
        ("2026-01-31T12:00:00Z", "yesterday", "'yesterday' is not a time in UTC"),
        ("status: ok", 'status: ok\n  error: "\\e[31mred"', "text has control characters"),
        ("tunings:", "tunings: 3\nmore:", "unknown field 'more'"),
        ("config: {", "config: {a: [" + "[" * 50, "nested too deeply"),
        ("config: {", "config: {{", "not YAML"),
    ],
)
def test_what_we_would_not_write_is_refused(old, new, message):
    assert GOOD.count(old) == 1
    with pytest.raises(SpecError) as caught:
        read_tunings(GOOD.replace(old, new), "their.yaml")
    text = str(caught.value)
    assert text.startswith("their.yaml:") and message in text and "\n" not in text


@pytest.mark.parametrize("text", ["", "3", "- a", "[" * 100000, "\x00", "a: b: c"])
def test_other_files_are_refused(text):
    with pytest.raises(SpecError):
        read_tunings(text)


def test_shipped_tunings_are_readable():
    for target in shipped_targets():
        assert target in TARGETS
        for shipped in shipped_trials(target):
            assert shipped.status == "ok" and shipped.target == target
