"""Statements laid out anew are what a formatter makes of them, and mean the same."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from attngen.source.layout import laid_out

ROOT = Path(__file__).parents[2]
NAMES = [f"name_{n}" for n in range(30)]


def function(statement: str, depth: int) -> str:
    """The statement within so many loops."""
    lines = [f"{'    ' * n}while name_{n}:" for n in range(depth)] + ["    " * depth + statement]
    return "\n".join(lines) + "\n"


def statements():
    for count in (1, 4, 8, 9, 10, 11, 12, 13, 14, 25):
        flat = ", ".join(NAMES[:count])
        yield f"call({flat})"
        yield f"call({flat})  # a remark of some length at the end"
        yield f"name = module.call({flat})"
        yield f"{flat} = call(one, two, three)" if count > 1 else "one = two"
        yield f"{flat} = call(" + ", ".join(NAMES[: 25 - count]) + ")"
        yield f"name = call(inner({flat}), other, outer({flat}))"
        if count > 1:
            yield "name &= (" + " & ".join(f"(call({a} & 1) < {a})" for a in NAMES[:count]) + ")"
        yield "name = call(\n        " + ",\n".join(NAMES[:count]) + ",\n    )"


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_formatter_finds_nothing_to_do(depth, tmp_path):
    for n, statement in enumerate(statements()):
        text = function(statement, depth)
        made = laid_out(text)
        assert ast.dump(ast.parse(made)) == ast.dump(ast.parse(text)), made
        assert laid_out(made) == made
        (tmp_path / f"statement_{n}.py").write_text(made)
    command = [sys.executable, "-m", "ruff", "format", "--diff", "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    run = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]


@pytest.mark.parametrize(
    "text",
    [
        '"""Words. ' + 130 * "w" + '"""\n',
        "call(\n    one,  # a remark\n    two,\n)\n",
        "x = " + " + ".join(NAMES) + "\n",
    ],
)
def test_what_is_no_plain_call_stays(text):
    assert laid_out(text) == text


def test_strings_stay_as_they_are():
    names = ", ".join(f"[{name}_of_the_tile]" for name in NAMES[:4])
    made = laid_out(f'x = assembled("cvt.rn $0, $2, $1;", "=r,r,r", {names}, dtype=int32, is_pure=True, pack=1)\n')
    assert made.count("\n") > 1 and '"cvt.rn $0, $2, $1;"' in made and '"=r,r,r"' in made
