"""Which layers are of a kind, compressed, and what the kind is in a table's few words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from attngen.spec.describe import describe_mask, describe_score
from attngen.spec.kind import default_scale
from attngen.spec.model import EXTERNAL, Kind, Spec

LISTED = 6  # layers or stretches that are named one by one


def layers_of(spec: Spec, kind: str) -> list[int]:
    """Layers of a kind, in order."""
    return [layer for layer, name in enumerate(spec.layer_kinds) if name == kind]


def compressed(layers: Sequence[int]) -> str:
    """``0, 3, 6, ..., 21``; ``0 to 31``; ``0 to 4, 6 to 10, ..., 30 to 33``; a few are all named."""
    stretches = [[layer] for layer in layers[:1]]
    for before, layer in pairwise(layers):
        if layer == before + 1:
            stretches[-1].append(layer)
        else:
            stretches.append([layer])
    words = [", ".join(map(str, s)) if len(s) < 3 else f"{s[0]} to {s[-1]}" for s in stretches]
    if len(layers) > LISTED and len(words) > 3:
        shown = 3 if len(words) == len(layers) else 2
        words[shown:-1] = ["..."]
    return ", ".join(words) or "none"


def counted(number: int, what: str) -> str:
    """``1 layer``, ``22 layers``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def sees(kind: Kind) -> str:
    """What a query at position i sees, without the verb."""
    return describe_mask(kind).removeprefix("sees ")


def scores(kind: Kind) -> str:
    """What is done to scores beyond the usual scale, or nothing."""
    usual, *rest = describe_score(kind)
    return ", ".join(rest if kind.scale == default_scale(kind.head_dim.qk) else [usual, *rest])


def heads(kind: Kind) -> str:
    """``12``, or ``32 / 8`` for query heads that share KV heads."""
    return str(kind.heads.query) if kind.heads.group == 1 else f"{kind.heads.query} / {kind.heads.kv}"


def head_dim(kind: Kind) -> str:
    """``64``, or ``192 / 128`` where values are of another width than keys."""
    return str(kind.head_dim.qk) if kind.head_dim.qk == kind.head_dim.v else f"{kind.head_dim.qk} / {kind.head_dim.v}"


def kind_values(spec: Spec, kind: Kind) -> dict[str, Any]:
    """A kind as plain values, for programs."""
    return {"name": kind.name, "layers": layers_of(spec, kind.name), "digest": kind.digest(), "sees": sees(kind)} | (
        kind.semantics()
    )


def external_layers(spec: Spec) -> list[int]:
    """Layers that are not attention, so that no kernel is theirs."""
    return layers_of(spec, EXTERNAL)
