"""What a model asks for, read from the mask function that transformers composes for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from attngen.errors import CallError
from attngen.spec.describe import describe_mask
from attngen.spec.kind import causal_window
from attngen.spec.model import HeadDim, Heads, Kind, Window

MODULE = "transformers.masking_utils"


@dataclass(frozen=True)
class Pattern:
    """Which keys a query sees, as far as transformers' own mask functions go."""

    causal: bool = False
    window: Window | None = None
    chunk: int | None = None

    def __str__(self) -> str:
        return describe_mask(replace(_ANY, causal=self.causal, window=self.window, chunk=self.chunk))


_ANY = Kind("pattern", Heads(1, 1), HeadDim(64, 64))


def pattern_of(mask_function: Callable) -> Pattern:
    """The pattern that ``mask_function`` draws; CallError for a function that is not known."""
    pattern = _read(mask_function)
    return replace(pattern, window=causal_window(pattern.window)) if pattern.causal else pattern


def _read(function: Callable) -> Pattern:
    name, held = getattr(function, "__qualname__", repr(function)), _held(function)
    if getattr(function, "__module__", None) == MODULE:
        match name.removesuffix(".<locals>.inner_mask"):
            case "causal_mask_function":
                return Pattern(causal=True)
            case "bidirectional_mask_function":
                return Pattern()
            case "sliding_window_overlay":
                return Pattern(window=Window(held["sliding_window"] - 1, None))
            case "sliding_window_bidirectional_overlay":
                return Pattern(window=Window(held["sliding_window"], held["sliding_window"]))
            case "chunked_overlay":
                return Pattern(chunk=held["chunk_size"])
            case "and_masks.<locals>.and_mask":
                return _all(_read(part) for part in held["mask_functions"])
            case "remap_positions_for_packed_sequence":  # counts by position_ids where rows are packed
                return _read(held["mask_function"])
            case "packed_sequence_mask_function":
                return Pattern()  # ``packed_rows`` says which sequence a token belongs to
    raise CallError(f"the model draws a mask by '{name}', which attngen does not know")


def packed_rows(mask_function: Callable) -> torch.Tensor | None:
    """The number of each token's sequence in its row, (batch, tokens), where rows are packed with several."""
    return _held_within(mask_function, "packed_sequence_mask")


def packed_positions(mask_function: Callable) -> torch.Tensor | None:
    """The position of each token of packed rows that masks count by, (1 or batch, tokens); None where they count from
    the first token of a row."""
    return _held_within(mask_function, "position_ids")


def _held_within(mask_function: Callable, name: str) -> torch.Tensor | None:
    """What a mask function, or one of those that it is composed of, holds by this name."""
    held = _held(mask_function)
    if name in held:
        return held[name]
    found = (_held_within(part, name) for part in held.get("mask_functions", ()))
    return next((value for value in found if value is not None), None)


def _held(function: Callable) -> dict[str, Any]:
    """The values that a closure holds, by name."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    return (
        {} if code is None or not cells else dict(zip(code.co_freevars, (c.cell_contents for c in cells), strict=True))
    )


def _all(patterns) -> Pattern:
    """What all of ``patterns`` let through."""
    out = Pattern()
    for pattern in patterns:
        if (pattern.window and out.window) or (pattern.chunk and out.chunk):
            raise CallError("the model draws a mask by two windows or chunks at once, which attngen does not know")
        out = Pattern(out.causal or pattern.causal, pattern.window or out.window, pattern.chunk or out.chunk)
    return out
