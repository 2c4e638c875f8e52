"""A fresh database, and the made-up kernel importable here and in worker processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attngen.database import open_database

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def db(tmp_path):
    return open_database(str(tmp_path / "tunings.sqlite"), shipped=False)
