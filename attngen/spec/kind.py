"""From the fields given for a kind, over the file's defaults, to a Kind complete in itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attngen.spec.document import Place
from attngen.spec.model import HeadDim, Heads, Kind, Window

IMPLICIT_KIND = "attention"  # the kind of a file that has no 'kinds'


@dataclass(frozen=True)
class Given:
    """A field's value, where its name stands, and whether the kind itself gave it or the file's defaults."""

    value: Any
    place: Place
    own: bool


def default_scale(qk: int) -> float:
    """The scale of a spec that gives none."""
    return float(qk) ** -0.5


def make_kind(name: str, place: Place, given: dict[str, Given]) -> Kind:
    """The kind that ``given`` describes; ``place`` is where the kind stands in the file."""
    examples = {"heads": "12, or {query: 32, kv: 8},", "head_dim": "64, or {qk: 192, v: 128},"}
    for field in examples:
        if field not in given and not (field == "head_dim" and has_latent(given)):
            whose = "" if name == IMPLICIT_KIND else f" for kind '{name}'"
            raise place.error(f"{field} is missing{whose}", f"{field}: {examples[field]} would be right")
    values = {field: entry.value for field, entry in given.items()}
    values["name"] = name
    values["heads"] = resolve_heads(given)
    values["head_dim"] = resolve_head_dim(given)
    if values.get("scale") is None:
        values["scale"] = default_scale(values["head_dim"].qk)
    if values.get("causal"):
        values["window"] = causal_window(values.get("window"))
    values["always_first"] = values.pop("always", None)
    if "select" in given:
        check_own_block(given["select"], bool(values.get("causal")))
    check_arguments(given)
    return Kind(**values)


def has_latent(given: dict[str, Given]) -> bool:
    """Whether keys and values are read from a latent."""
    return "latent" in given and given["latent"].value is not None


def resolve_heads(given: dict[str, Given]) -> Heads:
    """Query and KV heads; a latent has one KV head, else they are as many as the query's by default."""
    query, kv = given["heads"].value
    if not has_latent(given):
        return Heads(query, query if kv is None else kv)
    if kv not in (None, 1):
        problem = f"heads.kv is {kv}, but a latent has one key head that all query heads share"
        raise given["heads"].place.error(problem, f"heads: {query} would be right")
    return Heads(query, 1)


def resolve_head_dim(given: dict[str, Given]) -> HeadDim:
    """Widths as given, or as the latent makes them; a default head_dim gives way to a kind's own latent."""
    if not has_latent(given):
        return HeadDim(*given["head_dim"].value)
    latent = given["latent"].value
    if "head_dim" in given and given["head_dim"].own >= given["latent"].own:
        problem = f"latent already makes keys {latent.rank + latent.rope} and values {latent.rank} wide"
        raise given["head_dim"].place.error(problem, "leave head_dim out, or set latent: null")
    return HeadDim(latent.rank + latent.rope, latent.rank)


def causal_window(window: Window | None) -> Window | None:
    """The same window of a causal kind, in one way only: j <= i already bounds its right side."""
    return None if window is None or window.left is None else Window(window.left, 0)


def check_own_block(select: Given, causal: bool) -> None:
    """A block is scored as a whole, so one with keys that come after a query must not be scored for it."""
    if causal and select.value is not None and select.value.blocks is not None and not select.value.blocks.last:
        problem = "select.blocks scores the block that a causal query is in by keys that come after the query"
        raise select.place.error(problem, "'last: 1', which always selects that block, would be right")


def check_arguments(given: dict[str, Given]) -> None:
    """An argument that mask and score share must be one thing to both."""
    mask, score = (given[field].value if field in given else None for field in ("mask", "score"))
    if mask is None or score is None:
        return
    ranks = {**dict.fromkeys(mask.scalars, 0), **dict(mask.tensors)}
    for name, rank in {**dict.fromkeys(score.scalars, 0), **dict(score.tensors)}.items():
        if ranks.get(name, rank) != rank:
            problem = f"'{name}' has {rank} indices in score and {ranks[name]} in mask"
            raise given["score"].place.error(problem, "an argument keeps one rank everywhere")
