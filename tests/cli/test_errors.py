"""Whatever a user gets wrong is one line on stderr and exit status 2."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from sqlalchemy.exc import OperationalError

from attngen.cli.failures import message_of, status_of
from attngen.errors import AttngenError, NotGeneratedError, SpecError, UsageError

WRONG = [
    (["chek", "tiny.yaml"], "attngen: no such command 'chek'; did you mean 'check'?"),
    (["--jsn"], "attngen: no such option '--jsn'"),
    (["check"], "attngen check: missing argument 'SPEC'; see 'attngen check --help'"),
    (["check", "tiny.yaml", "--jsn"], "attngen check: no such option '--jsn'; did you mean '--json'?"),
    (["check", "tiny.yaml", "more"], "attngen check: got unexpected extra argument (more); see"),
    (["check", "nothing.yaml"], "attngen: nothing.yaml: No such file or directory; the path of a spec is needed"),
    (["check", "."], "attngen: .: Is a directory; the path of a spec is needed"),
    (["check", "bad.yaml"], "bad.yaml:1:21: unknown field 'hed_dim'; did you mean 'head_dim'?"),
    (
        ["explain", "tiny.yaml", "--seq", "0"],
        "attngen explain: invalid value for '--seq': 0 is not a whole number from 1",
    ),
    (
        ["explain", "tiny.yaml", "--seq", "many"],
        "attngen explain: invalid value for '--seq': many is not a whole number",
    ),
    (["explain", "tiny.yaml", "--kind", "atention"], "attngen: tiny has no kind 'atention'; did you mean 'attention'?"),
    (["explain", "tiny.yaml", "--target", "h10"], "attngen: unknown target 'h10'; did you mean 'h100'?"),
    (["explain", "tiny.yaml", "--png", "tiny.yaml/x.png"], "attngen: tiny.yaml: File exists"),
    (["generate", "tiny.yaml"], "attngen generate: missing option '--out'; see"),
    (
        ["generate", "later.yaml", "--out", "later"],
        "attngen: kind 'attention': blocks of 40 are not generated; a multiple of 16 would be right",
    ),
    (["generate", "tiny.yaml", "--out", "1-2"], "attngen: a Python package cannot be called '1-2'"),
    (
        ["verify", "later.yaml"],
        "attngen: kind 'attention': blocks of 40 are not generated; a multiple of 16 would be right",
    ),
    (["verify", "tiny.yaml", "--kind", "x"], "attngen: tiny has no kind 'x'; attention would be right"),
    (["import", "tiny.yaml"], "tiny.yaml:1:2: not valid JSON"),
    (["import", "config.json"], "config.json:1:2: model_type is 'gpt9'; "),
    (
        ["tune", "later.yaml"],
        "attngen: kind 'attention': blocks of 40 are not generated; a multiple of 16 would be right",
    ),
    (["tune", "tiny.yaml", "--trials", "-1"], "attngen tune: invalid value for '--trials': -1 is not a whole number"),
    (["tune", "tiny.yaml", "--minutes", "0"], "attngen tune: invalid value for '--minutes': "),
    (["tune", "tiny.yaml", "--db", "mongo://x"], "attngen: no driver for mongo://x: "),
    (
        ["run", "later.yaml"],
        "attngen: kind 'attention': blocks of 40 are not generated; a multiple of 16 would be right",
    ),
    (["show", "--target", "h1000"], "attngen: unknown target 'h1000'; did you mean 'h100'?"),
    (
        ["show", "--db", "tiny.yaml"],
        "attngen: the tuning database cannot be used: file is not a database; --db names another",
    ),
    (["bench"], "attngen: give either a SPEC or --suite dense, wide, window, fp8, backward, packed, sparse or all"),
    (["bench", "--suite", "dens"], "attngen bench: invalid value for '--suite': 'dens' is not one of"),
    (["bench", "--suite", "all", "--against", "sdpa,flx"], "attngen: unknown system 'flx'; did you mean 'flex'?"),
    (["bench", "--suite", "all", "--kind", "full"], "attngen: --kind is for a SPEC; a suite has kinds of its own"),
    (["db", "exprt"], "attngen db: no such command 'exprt'; did you mean 'export'?"),
    (["db", "export"], "has no trials; 'attngen tune' makes some"),
    (["db", "import"], "attngen db import: missing argument 'FILE...'; see"),
    (["db", "import", "tiny.yaml"], "tiny.yaml:1:2: unknown field 'name'"),
    (["db", "import", "picture.png"], "attngen: picture.png: it is not UTF-8 text"),
    (["db", "merge", "other.sqlite"], "attngen: other.sqlite: there is no such database"),
    (["db", "prune", "--keep", "0"], "attngen db prune: invalid value for '--keep': 0 is not a whole number from 1"),
]


@pytest.fixture
def inputs(tiny):
    Path("bad.yaml").write_text("{name: x, heads: 2, hed_dim: 4}")
    Path("later.yaml").write_text("{name: later, heads: 2, head_dim: 64, blocks: {size: 40}}")
    Path("config.json").write_text('{"model_type": "gpt9"}')
    Path("picture.png").write_bytes(b"\x89PNG\xff\xfe")


@pytest.mark.parametrize(("arguments", "line"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_wrong_input_is_one_line_and_status_2(attngen, inputs, arguments, line):
    result = attngen(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert line in result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.endswith("\n")


def test_nothing_asked_is_answered_with_help(attngen):
    for arguments in ([], ["db"]):
        result = attngen(*arguments)
        assert result.exit_code == 0 and "Usage: attngen" in result.stdout


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [
        (SpecError("a.yaml", 3, 7, "wrong", "right would be right"), "a.yaml:3:7: wrong; right would be right", 2),
        (UsageError("two\nlines"), "attngen: two lines", 2),
        (NotGeneratedError("later"), "attngen: later", 2),
        (AttngenError("the compiler said no"), "attngen: the compiler said no", 1),
        (FileNotFoundError(2, "No such file or directory", "x"), "attngen: x: No such file or directory", 2),
        (click.UsageError("Bad thing."), "attngen: bad thing", 2),
        (
            OperationalError("SELECT", {}, Exception("disk I/O error")),
            "attngen: the tuning database cannot be used: disk I/O error; --db names another",
            2,
        ),
    ],
)
def test_errors_as_lines(error, message, status):
    assert message_of(error) == message
    assert status_of(error) == status


def test_a_fault_of_ours_keeps_its_traceback():
    assert message_of(KeyError("oops")) is None


def run(*arguments, **options):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "attngen", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **options)


def test_as_a_program(tiny):
    done = run("check", "nothing.yaml")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    done = run("check", str(tiny))
    assert done.returncode == 0 and done.stderr == "" and "tiny" in done.stdout


def test_check_and_help_need_no_torch(tiny):
    """They answer at once because they import neither torch nor triton."""
    code = "import sys; from attngen.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'triton', 'sqlalchemy', 'matplotlib'} & set(sys.modules), 'imported'"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for arguments in (["--help"], ["check", str(tiny)], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_is_no_error(tiny):
    done = subprocess.run(
        f"{sys.executable} -m attngen check {tiny} --json | head -c 1 >/dev/null",
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert done.stderr == ""
