"""A command line of its own for each test: no GPU, an empty folder, a database that no other test sees."""

import pytest
from click.testing import CliRunner

from attngen.cli import main, options
from attngen.resources import resource_dir

EXAMPLES = resource_dir("templates").parent / "examples"
TINY = "{name: tiny, heads: {query: 2, kv: 1}, head_dim: 16, dtype: float16, causal: true, window: {total: 9}}"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNGEN_DB", str(tmp_path / "tunings.sqlite"))
    monkeypatch.setattr(options, "GPU_DEVICES", ())


@pytest.fixture
def attngen():
    """Run a command line in this process: ``attngen("check", path)``."""

    def run(*arguments, stdin=None):
        return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin, prog_name="attngen")

    return run


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def examples():
    return EXAMPLES
