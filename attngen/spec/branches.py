"""Kinds made of branches: attention in several ways, whose results are summed, each times its gate (NSA)."""

from __future__ import annotations

from dataclasses import replace

from attngen.errors import one_of
from attngen.spec.document import Place
from attngen.spec.kind import Given, make_kind
from attngen.spec.model import Kind

Branch = tuple[Kind, dict[str, Given]]
ALIKE = ("heads", "head_dim", "dtype")  # in all branches


def make_branched(name: str, place: Place, common: dict[str, Given], branches: list[Branch]) -> Kind:
    """The kind that ``branches`` make up; ``common`` holds for each of them, and for the kind."""
    kind = make_kind(name, place, common)
    if kind.latent is not None:
        raise common["latent"].place.error("latent is given beside branches", "branches of heads would be right")
    names = [branch.name for branch, _ in branches]
    for branch, given in branches:
        for field in ALIKE:
            if getattr(branch, field) != getattr(kind, field):
                problem = f"branch '{branch.name}' differs from kind '{name}' in {field}"
                raise given[field].place.error(problem, "give it once, for the kind")
        if branch.compress is not None:
            check_compressed(branch, given)
        if branch.select is not None and branch.select.blocks is not None and branch.select.blocks.by is not None:
            check_scored(branch, given, {other.name: other for other, _ in branches}, names)
    return replace(kind, branches=tuple(branch for branch, _ in branches))


def check_compressed(branch: Kind, given: dict[str, Given]) -> None:
    """Compressed keys stand for many each, so that nothing is said of one but causality."""
    for field in ("window", "chunk", "dilation", "prefix", "always", "global_tokens", "mask", "select", "blocks"):
        if getattr(branch, "always_first" if field == "always" else field):
            problem = f"branch '{branch.name}' compresses keys, of which '{field}' cannot tell single ones"
            raise given[field].place.error(problem, f"another branch with '{field}' would be right")


def check_scored(branch: Kind, given: dict[str, Given], others: dict[str, Kind], names: list[str]) -> None:
    """Blocks are scored by a branch that compresses keys, whose strides blocks are made of."""
    assert branch.select is not None and branch.select.blocks is not None
    blocks, place = branch.select.blocks, given["select"].place
    other = others.get(blocks.by or "")
    if other is None or other.compress is None:
        having = [name for name in names if others[name].compress is not None]
        remedy = f"{one_of(having)} does" if having else "none of the branches does"
        raise place.error(f"select.blocks.by is '{blocks.by}', which compresses no keys", remedy)
    if blocks.size % other.compress.stride:
        problem = f"select.blocks.size is {blocks.size}, and '{blocks.by}' compresses at strides of "
        raise place.error(f"{problem}{other.compress.stride}", "a multiple of it would be right")


def check_no_branch(kind: Kind, given: dict[str, Given]) -> None:
    """What only a branch can say is an error in a kind that has none."""
    if kind.compress is not None:
        raise given["compress"].place.error("compress outside of branches", "it belongs in one of a kind's branches")
    if kind.select is not None and kind.select.blocks is not None and kind.select.blocks.by is not None:
        problem = f"select.blocks.by names a branch '{kind.select.blocks.by}', and kind '{kind.name}' has none"
        raise given["select"].place.error(problem, "leave 'by' out: blocks are scored by their mean key")
