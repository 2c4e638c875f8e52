"""ModernBERT-base attends through attngen: hidden states of every layer, against transformers' own eager attention.

    python examples/modernbert_hidden_states.py [--device cuda] [--length 256]

The model is built from its config with random weights, so that nothing is downloaded, and reads three chapters of
different lengths, padded. In float32 the two may differ by a few roundings a layer; in bfloat16 and float16 attngen's
error, over the same weights in float32, may be at most a tenth above eager's own. Exit status 1 when it is more.
"""

import argparse
import sys
from pathlib import Path

import torch
from king_james import verses, word_ids
from options import add_device, add_dtype, dtype_of
from transformers import ModernBertConfig, ModernBertModel

from attngen.integrations.transformers import register
from attngen.spec import load_spec

SPEC = Path(__file__).with_name("modernbert-base.yaml")
BOOKS = ("Genesis", "Psalms", "John")
SHARES = (1.0, 0.8, 0.55)  # of the length that each row fills; the rest is padding
ROUNDINGS = 4  # a layer, in float32: scores, probabilities, their sum, the output
MARGIN = 1.1  # attngen's error over eager's own, in 16-bit dtypes


def batch(length: int, config: ModernBertConfig) -> dict[str, torch.Tensor]:
    """One row for each book, padded on the right."""
    ids = torch.full((len(BOOKS), length), config.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, (book, share) in enumerate(zip(BOOKS, SHARES, strict=True)):
        tokens = word_ids(" ".join(verses(book, length)), config.vocab_size)[: int(length * share)]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def hidden_states(model, inputs, attention: str) -> list[torch.Tensor]:
    """What each layer gives for the tokens that are not padding."""
    model.set_attn_implementation(attention)
    states = model(**inputs, output_hidden_states=True).hidden_states
    return [state[inputs["attention_mask"].bool()].double() for state in states]


def compare(model, inputs, spec, dtype: torch.dtype) -> bool:
    """Print a line for each layer; whether all of them agree. ``model`` is left in ``dtype``."""
    attention = register(spec)
    exact = hidden_states(model.to(dtype).float(), inputs, "eager")
    ours = hidden_states(model.to(dtype), inputs, attention)
    eager = exact if dtype == torch.float32 else hidden_states(model, inputs, "eager")
    print("layer  kind    largest difference  relative error     allowed")
    agree = True
    for layer, kind in enumerate(spec.layer_kinds, start=1):  # the first hidden state is the embedding
        error = relative(ours[layer], exact[layer])
        allowed = layer * ROUNDINGS * 2.0**-24 if eager is exact else MARGIN * relative(eager[layer], exact[layer])
        agree = agree and error <= allowed
        difference = float((ours[layer] - eager[layer]).abs().max())
        print(f"{layer - 1:5}  {kind:6}  {difference:18.1e}  {error:14.1e}  {allowed:10.1e}")
    print("attngen and eager attention agree" if agree else "attngen and eager attention DISAGREE")
    return agree


def relative(states: torch.Tensor, exact: torch.Tensor) -> float:
    return float((states - exact).norm() / exact.norm())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_device(parser)
    parser.add_argument("--length", type=int, default=256, help="tokens of the longest row (default 256)")
    add_dtype(parser)
    options = parser.parse_args(arguments)
    if options.length < 2:
        parser.error("--length is at least 2")
    torch.manual_seed(0)
    model = ModernBertModel(ModernBertConfig()).eval().to(options.device)
    inputs = {name: tensor.to(options.device) for name, tensor in batch(options.length, model.config).items()}
    return 0 if compare(model, inputs, load_spec(SPEC), dtype_of(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
