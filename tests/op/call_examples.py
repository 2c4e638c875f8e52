"""A spec with a kind for each thing that a call may have to give, and calls of it that are right."""

import torch

SPEC = """
name: model
heads: {query: 4, kv: 2}
head_dim: {qk: 16, v: 24}
dtype: float32
layers: 9
causal: true
kinds:
  plain: {}
  global: {causal: false}
  sunk: {sink: learned}
  sloped: {alibi: true}
  prefixed: {prefix: argument}
  biased: {score: "s * gain + bias[h, i - j]"}
  hidden: {mask: "document[b, i] == document[b, j]", softcap: 5}
  chosen: {select: {top_k: 4}}
  packed: {documents: true}
pattern: [plain, external, global, sunk, sloped, prefixed, biased, hidden, chosen]
"""
BATCH, SEQ_Q, SEQ_K = 2, 5, 7


def tensors(**shapes):
    generator = torch.Generator().manual_seed(0)
    default = {"q": (BATCH, 4, SEQ_Q, 16), "k": (BATCH, 2, SEQ_K, 16), "v": (BATCH, 2, SEQ_K, 24)}
    return {name: torch.randn(shape, generator=generator) for name, shape in {**default, **shapes}.items()}


def keywords(name):
    """What a kind of SPEC leaves to run time."""
    given = {
        "sunk": {"sink": torch.randn(4)},
        "sloped": {"alibi_slopes": torch.rand(4)},
        "prefixed": {"prefix": torch.tensor([3, 6], dtype=torch.int32)},
        "biased": {"gain": 0.5, "bias": torch.randn(4, 9)},
        "hidden": {"document": torch.tensor([[0, 0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 2, 2]])},
    }
    return given.get(name, {})


KINDS = ("plain", "global", "sunk", "sloped", "prefixed", "biased", "hidden")
ROW = torch.zeros(BATCH, dtype=torch.int32)
RANGE = torch.tensor([[0, 7], [1, 6]], dtype=torch.int32)
