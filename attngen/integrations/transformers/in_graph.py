"""What a model compiled as a whole asserts of its masks as it runs: a graph knows no values, and reads no function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from attngen.integrations.transformers.checks import LET_GO, PADDED_ROWS, position_bound
from attngen.integrations.transformers.masks import MOVED, UNKNOWN, Drawn, assert_in_graph
from attngen.spec import Kind
from attngen.spec.describe import describe_mask


class Counts(NamedTuple):
    """What ``Drawn`` would be by a kind; (batch,), UNKNOWN where nothing can be said."""

    apart: torch.Tensor
    by_first: torch.Tensor
    by_last: torch.Tensor


def check_in_graph(
    kind: Kind,
    layer: int,
    drawn: Drawn,
    key_range: torch.Tensor | None,
    lengths: tuple[int, int],
    keywords: Mapping[str, Any],
    strict: bool,
) -> None:
    """Assert that a call's mask is that of ``kind``, as far as ``Drawn`` tells, and that rows hold one sequence each or
    those that the call says; ``lengths`` of queries and keys."""
    ends = keywords.get("cu_seq_lens_q")
    moved = None  # by padding on the left, which says so itself
    if kind.chunk is not None and key_range is not None:
        moved = (key_range[:, 0] != 0).any()
        assert_in_graph(~moved, MOVED.format(kind.chunk))
    if ends is not None and key_range is not None:
        whole = (key_range[:, 0] == 0) & (key_range[:, 1] == lengths[1])
        assert_in_graph(whole, PADDED_ROWS.format(layer))
    if strict:
        alike = are_alike(drawn, counts_of_rows(kind, drawn, *lengths)) | of_documents(kind, drawn, lengths[0], ends)
    else:
        alike = of_one_sequence(kind, drawn, lengths[0], ends)
    assert_in_graph(
        alike if moved is None else alike | moved,
        f"layer {layer}: the model asks for another mask than the spec's kind '{kind.name}', by which a query "
        f"{describe_mask(kind)}; or position_ids start again within a row: in a compiled model packed sequences need "
        "cu_seq_lens_q, or its layers compiled one by one",
    )


def check_first_key_in_graph(kind: Kind, layer: int, drawn: Drawn) -> None:
    """Assert that a kind which counts from the first key of a sequence is given that key."""
    if position_bound(kind):
        assert_in_graph(drawn.first_key == 0, LET_GO.format(layer, kind.name))


def of_documents(kind: Kind, drawn: Drawn, seq_q: int, ends: torch.Tensor | None) -> torch.Tensor:
    """Whether the mask is that of the documents that the call tells of."""
    if ends is None:
        return torch.zeros((), dtype=torch.bool, device=drawn.apart.device)
    batch = len(drawn.apart)
    alike = are_alike(drawn, counts_of_documents(kind, ends, batch, seq_q, restart=True))
    if kind.chunk is None:
        return alike
    return alike | are_alike(drawn, counts_of_documents(kind, ends, batch, seq_q, restart=False))


def of_one_sequence(kind: Kind, drawn: Drawn, seq_q: int, ends: torch.Tensor | None) -> torch.Tensor:
    """Whether no row holds several sequences that the call does not tell of; the mask may be any."""
    apart = times_apart(kind, drawn.first_query, drawn.first_query + seq_q - 1)
    alone = agrees(drawn.apart, apart) | agrees(drawn.apart, torch.zeros_like(apart))
    return alone if ends is None else torch.ones_like(alone)


def are_alike(drawn: Drawn, counts: Counts) -> torch.Tensor:
    """Whether all numbers of all rows are the same."""
    pairs = ((drawn.apart, counts.apart), (drawn.by_first, counts.by_first), (drawn.by_last, counts.by_last))
    return torch.stack([agrees(found, expected) for found, expected in pairs]).all()


def agrees(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return ((found == UNKNOWN) | (expected == UNKNOWN) | (found == expected)).all()


def counts_of_rows(kind: Kind, drawn: Drawn, seq_q: int, seq_k: int) -> Counts:
    """Where each row is one sequence."""
    first, last = drawn.first_query, drawn.first_query + seq_q - 1
    seen = (keys_seen(kind, query, drawn.first_key, seq_k) for query in (first, last))
    return Counts(times_apart(kind, first, last), *seen)


def counts_of_documents(kind: Kind, ends: torch.Tensor, batch: int, seq: int, restart: bool) -> Counts:
    """Where documents, of all rows one after the other, begin and end at ``ends``. Masks count from the first token of
    each, or, without ``restart``, from the first of its row, as transformers did before 5.23."""
    ends = ends.long()
    begin, length = ends[:-1], ends.diff()
    row = (begin // seq).clamp_max(batch - 1)
    in_row = begin - row * seq
    position = torch.zeros_like(in_row) if restart else in_row  # of its first token
    inside = times_apart(kind, position, position + (length - 1).clamp_min(0))
    apart = ends.new_zeros(batch).index_add(0, row, inside + ((length > 0) & (in_row > 0)))

    def seen_by(token: torch.Tensor) -> torch.Tensor:
        own = (torch.searchsorted(ends, token, right=True) - 1).clamp(0, len(begin) - 1)
        seen = keys_seen(kind, position[own] + token - begin[own], position[own], length[own])
        return torch.where(token < ends[-1], seen, UNKNOWN)

    first = torch.arange(batch, device=ends.device) * seq
    last = first + seq - 1
    return Counts(torch.where(last < ends[-1], apart, UNKNOWN), seen_by(first), seen_by(last))


def times_apart(kind: Kind, first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """How many queries from after ``first`` to ``last`` do not see the key before them."""
    if kind.window is not None and kind.window.left == 0:
        return last - first
    return torch.zeros_like(first) if kind.chunk is None else last // kind.chunk - first // kind.chunk


def keys_seen(kind: Kind, query: torch.Tensor, first_key: torch.Tensor, seq_k: int | torch.Tensor) -> torch.Tensor:
    """How many of ``seq_k`` keys queries at some positions see, by the causality, window and chunk of a kind."""
    first, last = first_key, first_key + seq_k - 1
    if kind.causal:
        last = torch.minimum(last, query)
    if kind.window is not None and kind.window.left is not None:
        first = torch.maximum(first, query - kind.window.left)
    if kind.window is not None and kind.window.right is not None:
        last = torch.minimum(last, query + kind.window.right)
    if kind.chunk is not None:
        begin = query // kind.chunk * kind.chunk
        first, last = torch.maximum(first, begin), torch.minimum(last, begin + kind.chunk - 1)
    return (last - first + 1).clamp_min(0)
