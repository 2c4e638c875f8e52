"""Kinds in words, for generated code, tables and messages."""

from __future__ import annotations

from attngen.spec.model import Kind, Window


def describe_kind(kind: Kind) -> list[str]:
    """The kind's name and shape, then a phrase for each thing it says."""
    heads = f"{kind.heads.query} query heads"
    if kind.heads.kv != kind.heads.query:
        heads += f" over {kind.heads.kv} KV heads"
    dims = f"head_dim {kind.head_dim.qk}"
    if kind.head_dim.v != kind.head_dim.qk:
        dims += f" (values {kind.head_dim.v})"
    return [f"kind '{kind.name}'", f"{heads}, {dims}, {kind.dtype}", describe_mask(kind), *describe_score(kind)]


def describe_mask(kind: Kind) -> str:
    """Which keys j a query at position i sees."""
    if kind.branches:
        return "; ".join(f"{branch.name}: {describe_mask(branch)}" for branch in kind.branches)
    takes = []
    if kind.compress is not None:
        last = f" + {kind.compress.size - 1}" if kind.compress.size > 1 else ""
        takes.append(f"{kind.compress.stride} * j{last} <= i" if kind.causal else "every compressed key")
    elif kind.causal:
        takes.append("j <= i")
    if kind.window is not None:
        takes += describe_window(kind.window, kind.causal)
    if kind.chunk is not None:
        takes.append(f"i // {kind.chunk} == j // {kind.chunk}")
    if kind.dilation is not None and kind.dilation > 1:
        takes.append(f"(i - j) % {kind.dilation} == 0")
    if kind.documents:
        takes.append("same document")
    if kind.blocks is not None:
        takes.append(f"key block of {kind.blocks.size} in the query block's list")
    if kind.mask is not None:
        takes.append(f"({kind.mask.text})")
    if kind.select is not None:
        takes.append("j selected for i" if kind.select.blocks is None else "j's block selected for i")
    causal = " and j <= i" if kind.causal else ""
    gives = []
    if kind.prefix is not None:
        gives.append("j < prefix" if kind.prefix == "argument" else f"j < {kind.prefix}")
    if kind.always_first:
        gives.append(f"j < {kind.always_first}{causal}")
    if kind.global_tokens:
        gives.append(f"(i < {kind.global_tokens} or j < {kind.global_tokens}){causal}")
    seen = " and ".join(takes) or "every key"
    if gives and len(takes) > 1:
        seen = f"({seen})"
    return "sees " + " or ".join([seen, *(f"({give})" if " and " in give else give for give in gives)])


def describe_window(window: Window, causal: bool = False) -> list[str]:
    """The window's bounds; ``causal`` leaves out what causality says already."""
    if window.left is not None and window.left == window.right and not causal:
        return [f"|i - j| <= {window.left}"]
    parts = []
    if window.left is not None:
        parts.append(f"j >= i - {window.left}")
    if window.right is not None and not causal:
        parts.append(f"j <= i + {window.right}" if window.right else "j <= i")
    return parts


def describe_score(kind: Kind) -> list[str]:
    """What is done to a score, in order."""
    out = [f"softmax_scale {kind.scale:.6g}"]
    if kind.softcap is not None:
        out.append(f"softcap {kind.softcap:g}")
    if kind.alibi:
        out.append("ALiBi")
    if kind.score is not None:
        out.append(f"score {kind.score.text}")
    if kind.sink:
        out.append("a learned sink a head")
    return out
