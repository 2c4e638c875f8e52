"""Writing a package: which folders are taken, what is kept, that nothing is left half done."""

import json

import pytest

from attngen.errors import NotGeneratedError, UsageError
from attngen.package import write_package
from attngen.spec import parse_spec
from tests.package.specs import H100, small


def write(out, name="modernbert-base", **options):
    return write_package(small(name), out, target=H100, db=str(out.parent / "none.sqlite"), **options)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_and_an_empty_one(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new" / "made", tmp_path / "empty"):
        written = write(folder)
        assert sorted(path.name for path in written) == listing(folder)
        assert all(path.is_file() for path in written)
    assert listing(tmp_path / "new") == ["made"]


def test_generating_again_replaces_what_was_ours_and_nothing_else(tmp_path):
    made = tmp_path / "made"
    write(made)
    (made / "__pycache__").mkdir()
    write(made, "smollm2-135m")
    assert "local.py" not in listing(made)
    assert "attention_op.py" in listing(made)
    assert "__pycache__" in listing(made)


def test_a_folder_with_anything_else_is_refused_unless_forced(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "thesis.txt").write_text("years of work")
    (made / "zebra").mkdir()
    with pytest.raises(UsageError, match=r"holds 'thesis\.txt' and 1 more, not made by attngen"):
        write(made)
    assert listing(made) == ["thesis.txt", "zebra"]
    write(made, force=True)
    assert (made / "thesis.txt").read_text() == "years of work"
    assert "local.py" in listing(made)
    with pytest.raises(UsageError, match="holds 'thesis\\.txt'"):
        write(made)


def test_a_manifest_cannot_reach_other_folders(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (tmp_path / "precious").write_text("x")
    manifest = {"generator": "attngen", "files": ["../precious", "/etc/passwd", 3]}
    (made / "generated.json").write_text(json.dumps(manifest))
    write(made)
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"generator": "another"}', '{"files": 1'])
def test_a_manifest_that_is_not_ours(tmp_path, content):
    made = tmp_path / "made"
    made.mkdir()
    (made / "generated.json").write_text(content)
    with pytest.raises(UsageError, match="not made by attngen"):
        write(made)


@pytest.mark.parametrize(
    ("name", "better"),
    [("my-attention", "my_attention"), ("class", "attention_class"), ("3d", "attention_3d"), ("a.b", "a_b")],
)
def test_names_that_python_cannot_import(tmp_path, name, better):
    with pytest.raises(UsageError, match=rf"cannot be called '{name}'; a folder called '{better}' would be right"):
        write(tmp_path / name)
    assert listing(tmp_path) == []


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "made").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        write(tmp_path / "made")


def test_nothing_is_written_when_generating_fails(tmp_path):
    with pytest.raises(NotGeneratedError):
        write_package(parse_spec("{heads: 2, head_dim: 16, documents: true}"), tmp_path / "made", target=H100)
    assert listing(tmp_path) == []


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    from pathlib import Path

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match="No space left on device"):
        write(tmp_path / "made")
    assert listing(tmp_path) == []
