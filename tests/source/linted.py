"""Generated text as the project's linter and formatter see it."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "pyproject.toml"
both_checks = pytest.mark.parametrize(
    "check", [["check"], ["format", "--check", "--line-length", "120"]], ids=lambda check: check[0]
)


def assert_content(check: list[str], folder: Path) -> None:
    """Ruff has nothing to say of the files in ``folder``."""
    command = [sys.executable, "-m", "ruff", *check, "--config", str(CONFIG), "--no-cache", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
