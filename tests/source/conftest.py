"""Caches of a test's own, for tests that compile."""

import pytest


@pytest.fixture
def fresh_caches(monkeypatch, tmp_path):
    """Neither Triton nor attngen finds what was made before."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("ATTNGEN_CACHE", str(tmp_path / "attngen"))
