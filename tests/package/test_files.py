"""What a generated package looks like: linted, importable alone, its table of configs, its names."""

import ast
import subprocess
import sys

import pytest

from attngen.errors import NotGeneratedError, UsageError
from attngen.package import package_files, write_package
from attngen.package.configs import LENGTHS, config_table
from attngen.package.names import function_names
from attngen.plan import plan_forward
from attngen.spec import load_spec, parse_spec
from attngen.target import get_target
from tests.package.specs import EXAMPLES, H100, both, choosing, every_argument, lists_alone, selecting, small, tuned

GENERATED = sorted(EXAMPLES.glob("*.yaml"))


def module_name(stem):
    return stem.replace("-", "_").replace(".", "_")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Every example, and the spec with every argument, as packages in one folder."""
    folder = tmp_path_factory.mktemp("packages")
    database = str(folder / "none.sqlite")
    for path in GENERATED:
        write_package(load_spec(path), folder / module_name(path.stem), target=H100, db=database)
    spec = every_argument()
    write_package(spec, folder / "every_argument", target=H100, db=tuned(spec, folder / "tuned.sqlite"))
    for target in (H100, get_target("a100")):
        write_package(selecting(), folder / f"selecting_{target.name}", target=target, db=database)
    for spec in (choosing(), both(), lists_alone()):
        write_package(spec, folder / module_name(spec.name), target=H100, db=database)
    return folder


def test_ruff_is_content(packages):
    rules = "E,F,I,UP,B,SIM,RUF"
    for command in (["check", "--select", rules], ["format", "--check", "--diff"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "120", str(packages)],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout[:3000] + run.stderr[:3000]


def test_only_torch_and_triton_are_needed(packages):
    for path in packages.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= {"os", "torch", "triton"}, path
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module.split(".")[0] in ("__future__", "functools", "typing", "triton"), path


def test_a_fresh_process_imports_it_without_attngen(packages):
    code = (
        "import sys, modernbert_base as m; assert 'attngen' not in sys.modules; "
        "print([op.__name__ for op in m.LAYERS[:4]], len(m.LAYERS), m.__all__)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=packages, capture_output=True, text=True)
    assert run.stdout.strip() == (
        "['global_', 'local', 'local', 'global_'] 22 ['LAYERS', 'attention', 'global_', 'local']"
    ), run.stderr


def test_readme_says_what_it_is(packages):
    text = (packages / "gpt_oss_20b" / "README.md").read_text()
    for part in ("gpt-oss-20b", "h100", "attngen tune", "gpt_oss_20b.local(q, k, v, sink=sink)", "Apache", "window:"):
        assert part in text


@pytest.mark.parametrize("name", ["every_argument", "modernbert_base"])
def test_arguments_named_by_a_spec_shadow_nothing(packages, name):
    """What an op's body uses beside its parameters begins with an underscore, or no argument may be called so."""
    from attngen.spec.grammar import RESERVED

    for path in (packages / name).glob("[a-z]*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
                parameters = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
                assert all(name.startswith("_") or name in RESERVED for name in used - parameters), path


def test_one_row_for_each_range_of_lengths(tmp_path):
    spec = small("modernbert-base")
    plan = plan_forward(spec.kind("global"))
    short, long, anywhere = config_table(plan, H100, str(tmp_path / "none.sqlite"))
    assert (short.longest, long.longest, anywhere.longest) == (1024, None, None)
    assert {short.config["schedule"], long.config["schedule"]} == {"hopper"}
    assert anywhere.config["loads"] == "pointer"  # where the others cannot run
    (only,) = config_table(plan, get_target("a100"), str(tmp_path / "none.sqlite"))
    assert only.longest is None
    assert "default for a100" in only.provenance
    rows = config_table(plan, H100, tuned(spec, tmp_path / "tuned.sqlite"))
    assert [row.longest for row in rows] == [1024, 8192, None]
    assert all(row.longest in (*LENGTHS, None) for row in rows)
    assert [row.config["loads"] for row in rows] == ["pointer", "descriptor", "pointer"]
    assert all("tuned on h100" in row.provenance for row in rows)


def test_kernels_that_differ_are_files_of_their_own(tmp_path):
    spec = small("modernbert-base")
    files = package_files(spec, "p", target=H100, db=tuned(spec, tmp_path / "tuned.sqlite"))
    assert [name for name in sorted(files) if name.startswith("_global__kernel")] == [
        "_global__kernel_masked_pointer.py",
        "_global__kernel_split_descriptor.py",
        "_global__kernel_split_pointer.py",
    ]
    assert "if config.kernel is _kernel" in files["global_.py"]
    alone = package_files(spec, "p", target=get_target("a100"), db=str(tmp_path / "none.sqlite"))
    assert "_global__kernel.py" in alone
    hopper = package_files(spec, "p", target=H100, db=str(tmp_path / "none.sqlite"))
    assert [name for name in sorted(hopper) if name.startswith("_global__kernel")] == [
        "_global__kernel_hopper_128x128.py",
        "_global__kernel_hopper_192x128.py",
        "_global__kernel_portable.py",
    ]


def test_function_names():
    assert function_names(["global", "local", "attention", "Local", "match"]) == {
        "global": "global_",
        "local": "local",
        "attention": "attention_op",
        "Local": "Local_op",
        "match": "match_",
    }


def test_kinds_without_kernels_are_refused():
    with pytest.raises(NotGeneratedError, match="'documents' is not generated as a package"):
        package_files(parse_spec("{heads: 2, head_dim: 16, documents: true}"), "p", target=H100)


def test_a_spec_without_attention_is_refused():
    spec = parse_spec("heads: 2\nhead_dim: 16\nlayers: 2\nkinds: {a: {}}\npattern: [external, external]")
    with pytest.raises(UsageError, match="no layer that is attention"):
        package_files(spec, "p", target=H100)
