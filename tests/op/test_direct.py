"""A compiled kernel is launched with what Triton's own front end gives it, and only by a Triton that is known."""

from types import SimpleNamespace

import pytest
import triton

from attngen.op import direct

GRID = 7


@pytest.fixture
def compiled():
    """A kernel that keeps what it is launched with."""
    calls = []
    return SimpleNamespace(
        run=lambda *arguments: calls.append(arguments), function="f", packed_metadata="m", calls=calls
    )


def test_a_launch_passes_what_tritons_runner_passes(compiled, monkeypatch):
    """triton.compiler.CompiledKernel: the grid, the stream, the kernel, its metadata, and no hooks."""
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    monkeypatch.delenv("ATTNGEN_SAFE_LAUNCH", raising=False)
    launch = direct.direct_launch(compiled, GRID)
    launch(99, 1, None, 3)
    assert compiled.calls == [(GRID, 1, 1, 99, "f", "m", None, None, None, 1, None, 3)]


@pytest.mark.parametrize(("version", "safe", "made"), [("3.7.0", "", True), ("3.6.0", "1", True), ("3.6.0", "", False)])
def test_there_is_none_where_it_could_go_wrong(compiled, monkeypatch, version, safe, made):
    monkeypatch.setattr(triton, "__version__", version)
    monkeypatch.setenv("ATTNGEN_SAFE_LAUNCH", safe)
    assert direct.direct_launch(compiled if made else None, GRID) is None
