"""The roofline picture: labels that can be read, and what it cannot be drawn from."""

import json
import math
import sys

import pytest

from attngen.bench.labels import Box, leader, place
from attngen.bench.picture import draw, main, short
from attngen.errors import UsageError
from attngen.resources import resource_dir

RESULTS = resource_dir("templates").parent / "benchmarks" / "results"
FRAME = Box(0, 0, 400, 300)


def overlaps(boxes):
    return [(a, b) for n, a in enumerate(boxes) for b in boxes[:n] if a.overlaps(b)]


def test_labels_of_a_crowd_stand_apart():
    """Nine points within a few pixels of each other, in a corner."""
    points = [(370 + 4 * n, 280 + 3 * m) for n in range(3) for m in range(3)]
    sizes = [(60.0, 12.0)] * len(points)
    boxes = place(points, sizes, [Box(x - 4, y - 4, x + 4, y + 4) for x, y in points], FRAME)
    assert overlaps(boxes) == [] and all(box.inside(FRAME) for box in boxes)
    assert [(box.x1 - box.x0, box.y1 - box.y0) for box in boxes] == [pytest.approx(size) for size in sizes]


def test_a_label_alone_is_near_and_off_its_mark():
    mark = Box(195, 145, 205, 155)
    (box,) = place([(200, 150)], [(60, 12)], [mark], FRAME)
    assert not box.overlaps(mark) and math.dist((200, 150), box.nearest((200, 150))) < 15


def test_labels_keep_off_obstacles():
    """Everything right of the point is taken."""
    wall = [Box(205, 0, 400, 300)]
    (box,) = place([(200, 150)], [(60, 12)], wall, FRAME)
    assert box.x1 <= 205


def test_labels_rather_cover_marks_than_text():
    text, marks = Box(0, 0, 400, 140), Box(0, 150, 400, 300)
    (box,) = place([(200, 150)], [(60, 12)], [marks], FRAME, [text])
    assert not box.overlaps(text)


def test_a_leader_ends_at_the_label():
    assert leader((0, 0), Box(12, -1, 20, 1))[-1] == (12, 0) and leader((5, 5), Box(0, 0, 9, 9)) == []


@pytest.mark.parametrize("file", sorted(path.name for path in RESULTS.glob("*-roofline.svg")))
def test_pictures_that_are_kept(file, tmp_path):
    """Drawn from the results beside them, as they are, and none of their labels covers another."""
    results = json.loads((RESULTS / file.replace("-roofline.svg", ".json")).read_text())
    boxes = draw(results, tmp_path / "new.svg")
    ours = [row for row in results["rows"] if row["system"] == "attngen" and row["ms"]]
    elsewhere = ("fp8-forward", "indexer", "indexer-select", "gathered", "blocks")  # under other roofs
    elsewhere += ("dense-backward", "window-backward", "packed-forward", "packed-backward")
    ours = [row for row in ours if row["suite"] not in elsewhere]
    assert len(boxes) == len(ours) and overlaps(boxes) == []
    assert all(box.inside(Box(0, 0, 960, 660)) for box in boxes)


def small(**changes):
    row = {"suite": "s", "case": "D64 full S2048", "system": "attngen", "ms": 1.0, "tflops": 400.0, "gbps": 390.0}
    about = {"device": "a GPU", "limits": {"bf16_tflops": 798.0, "hbm_gbps": 3006.0}, "rows": [row]}
    return {**about, **changes}


def test_the_same_results_make_the_same_picture(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(small()))
        main([str(tmp_path / f"{name}.json"), str(tmp_path / "out" / f"{name}.svg")])
    first, second = ((tmp_path / "out" / f"{name}.svg").read_bytes() for name in ("a", "b"))
    assert first == second and first.startswith(b"<?xml")


def test_a_picture_beside_each_of_the_results(tmp_path):
    for name, values in (("h100", small()), ("h100-verify", [1]), ("h200", small())):
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    main([str(path) for path in sorted(tmp_path.glob("*.json"))])
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["h100-roofline.svg", "h200-roofline.svg"]


@pytest.mark.parametrize(
    "changes",
    [{"limits": {}}, {"rows": []}, {"rows": [{"case": "c", "system": "attngen", "ms": None, "note": "no"}]}],
)
def test_nothing_to_draw(tmp_path, changes):
    with pytest.raises(UsageError, match="needs results with 'limits' and with times"):
        draw(small(**changes), tmp_path / "x.svg")


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'attngen\[reports\]'"):
        draw(small(), tmp_path / "x.svg")


def test_short_names():
    assert [short(case) for case in ("D64 causal S16384", "GPT-OSS S100", "a B2 S2048")] == [
        "D64 causal 16K",
        "GPT-OSS 100",
        "a B2 2K",
    ]
