"""Specs that the package tests generate from: examples and others, small enough for the interpreter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from attngen.database import Trial, open_database
from attngen.plan import plan_forward
from attngen.plan.space import default_config
from attngen.problem import Problem
from attngen.spec import Spec, load_spec, parse_spec
from attngen.spec.model import Heads
from attngen.target import get_target

EXAMPLES = Path(__file__).parents[2] / "examples"
H100 = get_target("h100")

EVERY_ARGUMENT = """
name: every-argument
heads: {query: 4, kv: 2}
head_dim: {qk: 80, v: 48}
dtype: float16
sink: learned
alibi: true
causal: true
kinds:
  class: {prefix: argument, mask: "i - j < reach or table[b, j] > 0"}
  lines: {score: "s * torch + bias[h, j - i]", dilation: 2, softcap: 8}
pattern: [class, lines, external]
layers: 5
"""

SELECTING = """
name: selecting
heads: {query: 4, kv: 2}
head_dim: {qk: 48, v: 32}
dtype: float16
causal: true
kinds:
  dense: {window: {total: 30}}
  groups:
    window: {total: 40}
    sink: learned
    select: {top_k: 16, first: 1, last: 2, indexer: {heads: 8, head_dim: 32, dtype: float16}}
  latents:
    heads: 16
    latent: {rank: 256, rope: 64}
    select: {top_k: 16, indexer: {heads: 8, head_dim: 32, hadamard: true, scale: {block: 32, format: ue8m0}}}
  lists: {chunk: 16, causal: false, select: {top_k: 8}}
pattern: [dense, groups, latents, lists]
layers: 4
"""

CHOOSING = """
name: choosing
heads: {query: 4, kv: 2}
head_dim: {qk: 48, v: 32}
dtype: float16
causal: true
kinds:
  moba: {sink: learned, select: {blocks: {size: 8, top_k: 3, last: 1}}}
  shared: {window: {total: 40}, select: {blocks: {size: 16, top_k: 3, last: 1, per: kv_head}}}
  nsa:
    heads: {query: 8, kv: 1}
    branches:
      coarse: {compress: {size: 8, stride: 4}}
      chosen: {select: {blocks: {size: 8, top_k: 3, first: 1, last: 1, per: kv_head, by: coarse}}}
      near: {window: {total: 20}, sink: learned}
  nsa_near: {}
pattern: [moba, moba, moba, shared, shared, shared, nsa, nsa, nsa, nsa_near]
layers: 10
"""

BOTH = """
name: both
heads: {query: 4, kv: 2}
head_dim: 32
dtype: float16
causal: true
kinds:
  keys: {select: {top_k: 16, indexer: {heads: 8, head_dim: 32, dtype: float16}}}
  blocks: {select: {blocks: {size: 8, top_k: 3, last: 1}}}
pattern: [keys, blocks]
layers: 2
"""


def every_argument() -> Spec:
    """Runtime arguments of all shapes, a kind named by a keyword, a layer without attention, odd widths."""
    return parse_spec(EVERY_ARGUMENT)


def selecting() -> Spec:
    """Kinds that select keys beside one that does not: groups of heads, latents scored in 8 bits, lists alone."""
    return parse_spec(SELECTING)


def choosing() -> Spec:
    """Kinds that select blocks, by head, by KV head and in branches, beside one whose name a branch's op would take."""
    return parse_spec(CHOOSING)


def both() -> Spec:
    """A kind that selects keys beside one that selects blocks."""
    return parse_spec(BOTH)


def lists_alone() -> Spec:
    """A kind whose lists come from elsewhere, and no other."""
    return parse_spec("{name: lists, heads: 2, latent: {rank: 512, rope: 64}, causal: true, select: {top_k: 64}}")


def small(name: str, dtype: str = "float16") -> Spec:
    """An example with at most two KV heads of at most two query heads each."""
    spec = load_spec(EXAMPLES / f"{name}.yaml").with_dtype(dtype)
    kinds = []
    for kind in spec.kinds:
        kv = min(kind.heads.kv, 2)
        kinds.append(replace(kind, heads=Heads(kv * min(kind.heads.group, 2), kv)))
    return replace(spec, kinds=tuple(kinds))


def tuned(spec: Spec, path: Path):
    """A database in which each length has a config of its own, with and without descriptors and packed heads."""
    database = open_database(str(path), shipped=False)
    for kind in spec.kinds:
        plan = plan_forward(kind)
        changes = {
            512: dict(loads="pointer"),
            4096: dict(loads="descriptor"),
            32768: dict(loads="pointer", SPLIT_MASKS=False, num_warps=8, BLOCK_M=128),
        }
        for length, values in changes.items():
            problem = Problem("forward", kind.digest(), max(16384 // length, 1), length, length)
            config = default_config(plan, H100, problem, able=lambda config: "loads" in config)
            config = config.replace(schedule="portable", **values)
            database.record(Trial(problem, "h100", config, "ok", median_ms=0.5))
    return database
