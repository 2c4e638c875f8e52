"""Triton's hash of itself is computed once for an installation, and again when one of its files changes."""

import json

import pytest
import triton
from triton.runtime import cache as triton_cache

from attngen.op import triton_key

pytestmark = pytest.mark.skipif(not triton.__version__.startswith(triton_key.KNOWN), reason="another Triton")


@pytest.fixture
def hashed(monkeypatch, tmp_path):
    """How often Triton hashed itself."""
    calls = []
    monkeypatch.setenv("ATTNGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(triton_cache, "triton_key", lambda: calls.append(1) or "3.6.0-hash")
    yield calls
    triton_key.remember_triton_key.cache_clear()


def start_again(monkeypatch, calls):
    """As another process would."""
    triton_key.remember_triton_key.cache_clear()
    monkeypatch.setattr(triton_cache, "triton_key", lambda: calls.append(1) or "3.6.0-hash")
    triton_key.remember_triton_key()
    return triton_cache.triton_key()


def test_it_is_hashed_once(hashed, monkeypatch):
    assert start_again(monkeypatch, hashed) == "3.6.0-hash" and len(hashed) == 1
    assert start_again(monkeypatch, hashed) == "3.6.0-hash" and len(hashed) == 1


def test_it_is_hashed_again_when_a_file_changed(hashed, monkeypatch):
    start_again(monkeypatch, hashed)
    monkeypatch.setattr(triton_key, "stamp_of", lambda folder: "another")
    start_again(monkeypatch, hashed)
    assert len(hashed) == 2


def test_a_damaged_file_or_none_at_all_does_not_matter(hashed, monkeypatch, tmp_path):
    for text in ("", "[]", json.dumps({"stamp": 1})):
        (tmp_path / "triton_key.json").write_text(text)
        assert start_again(monkeypatch, hashed) == "3.6.0-hash"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ATTNGEN_CACHE", str(tmp_path / "file"))
    assert start_again(monkeypatch, hashed) == "3.6.0-hash"


def test_the_stamp_changes_with_a_file(tmp_path):
    for part in ("_C", "runtime", "compiler", "backends/nvidia", "language"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "_C" / "libtriton.so").write_text("x")
    (tmp_path / "runtime" / "cache.py").write_text("x")
    deep = tmp_path / "backends" / "nvidia" / "driver.py"
    deep.write_text("x")
    before = triton_key.stamp_of(tmp_path)
    assert triton_key.stamp_of(tmp_path) == before
    deep.write_text("xy")
    assert triton_key.stamp_of(tmp_path) != before
