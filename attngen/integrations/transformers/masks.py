"""Masks as transformers asks for them: four numbers a sequence, O(batch), or all of one where a model's indexer adds it
to its scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from attngen.errors import CallError
from attngen.integrations.transformers.pattern import Pattern, packed_positions, packed_rows, pattern_of

COLUMNS = 4  # query offset, key offset, first valid key, end of the valid keys; the last two count from the first key
DRAWN = 3  # columns besides in a graph, at the end: what is ``Drawn``
GRAPH_COLUMNS, UNPADDED_COLUMNS = COLUMNS + DRAWN, 2 + DRAWN  # without an attention_mask all keys are valid
UNKNOWN = -1  # of a number of keys
HOLES = "attention_mask has padding between tokens; padding at either end is supported"
MOVED = "attention_mask has padding on the left, which moves chunks of {}; pad on the right"


@dataclass(frozen=True)
class Drawn:
    """What three numbers tell of a model's mask, padding apart, and where the call is; all (batch,)."""

    apart: torch.Tensor  # how many queries but the first do not see the key before them; UNKNOWN where no mask is drawn
    by_first: torch.Tensor  # how many keys the first query sees
    by_last: torch.Tensor
    first_query: torch.Tensor  # positions
    first_key: torch.Tensor


@dataclass(frozen=True)
class Mask:
    """One call's mask, as an op takes it; None where the op's default says the same."""

    offsets: torch.Tensor | None  # (batch,) position of the first query, counted from the first key
    key_range: torch.Tensor | None  # (batch, 2)
    pattern: Pattern | None  # what the model asks for; None where it cannot be known
    first_key: int | None  # position of the first key: above 0 where a cache has let older keys go
    drawn: Drawn | None = None  # in a graph
    # Where each sequence begins among the tokens of all rows, if rows are packed; whether a chunk begins there
    # too, None where nothing says so.
    cu_seqlens: torch.Tensor | None = None
    own_chunks: bool | None = None


def mask_call(*, config: Any = None, **arguments: Any) -> torch.Tensor:
    """What transformers calls a mask, for the model of ``config``: a descriptor of O(batch), or the matrix of a model
    with an indexer.

    That is bool (batch, 1, seq_q, seq_k), True at keys that a query may see, with the ``Mask`` as its attribute
    ``attngen``. It is as large as it looks, and the scores that such a model adds it to are four times that for each
    head of its indexer: ``use_sparse_attention`` needs neither.
    """
    descriptor = describe_mask_call(**arguments)
    if getattr(config, "index_topk", None) is None:
        return descriptor
    from transformers.masking_utils import sdpa_mask

    matrix = sdpa_mask(**{**arguments, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})
    if not torch.compiler.is_compiling():
        matrix.attngen = descriptor.attngen  # type: ignore[attr-defined]
    return matrix


def describe_mask_call(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | torch.Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable | None = None,
    attention_mask: torch.Tensor | None = None,
    device: torch.device | str = "cpu",
    **_: Any,
) -> torch.Tensor:
    """What transformers calls a mask: int32 (batch, 1, 1, 4), with the ``Mask`` as its attribute ``attngen``.

    A tensor, because models pass masks on as such; of four dimensions, because then they take it for a finished mask
    where ``generate`` has asked for it before they do. The attribute spares every layer the work of reading it, and
    is lost where a hook moves the tensor to another device: the numbers say the same, but for the pattern. A graph
    holds numbers alone (``describe_in_graph``).
    """
    if torch.compiler.is_compiling():
        return describe_in_graph(
            batch_size, q_length, kv_length, q_offset, kv_offset, mask_function, attention_mask, device
        )
    pattern = None if mask_function is None else pattern_of(mask_function)
    descriptor = torch.empty((batch_size, COLUMNS), dtype=torch.int32, device=device)
    descriptor[:, 0] = q_offset
    descriptor[:, 1] = kv_offset
    descriptor[:, 2] = 0
    descriptor[:, 3] = kv_length
    padded = False
    if attention_mask is not None:
        valid = valid_keys(attention_mask, kv_length, kv_offset).to(device)
        descriptor[:, 2], descriptor[:, 3], counts = bounds_of(valid)
        padded = check_padding(descriptor, counts, kv_length, pattern)
    if pattern is not None and pattern.chunk is not None and kv_offset and q_length > 1:
        raise CallError(
            f"chunks of {pattern.chunk} beside a cache that has let older keys go are supported for one token at a time"
        )
    rows = None if pattern is None or mask_function is None else packed_rows(mask_function)
    if rows is not None and q_length != kv_length:
        raise CallError(
            "several sequences packed in one row (position_ids that start again) beside a cache are not supported"
        )
    ends = None if rows is None else boundaries(rows)
    finished = descriptor[:, None, None, :]
    last_at_end = isinstance(q_offset, int) and q_offset - kv_offset == kv_length - q_length
    finished.attngen = Mask(  # type: ignore[attr-defined]
        offsets=None if last_at_end else (descriptor[:, 0] - descriptor[:, 1]),
        key_range=descriptor[:, 2:].contiguous() if padded else None,
        pattern=pattern,
        first_key=kv_offset,
        cu_seqlens=ends,
        own_chunks=None if ends is None else chunks_begin(ends, rows, mask_function, pattern),
    )
    return finished


def describe_in_graph(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | torch.Tensor,
    kv_offset: int,
    mask_function: Callable | None,
    attention_mask: torch.Tensor | None,
    device: torch.device | str,
) -> torch.Tensor:
    """The descriptor where a compiler is at work, which knows no values: what they must be is asserted as the graph
    runs. (batch, 1, 1, 7), or 5 for a call without an attention_mask."""
    columns = UNPADDED_COLUMNS if attention_mask is None else GRAPH_COLUMNS
    descriptor = torch.zeros((batch_size, columns), dtype=torch.int32, device=device)
    descriptor[:, 0] = q_offset
    descriptor[:, 1] = kv_offset
    descriptor[:, -DRAWN:] = UNKNOWN
    row, head = torch.arange(batch_size, device=device)[:, None], torch.zeros((), dtype=torch.long, device=device)
    if mask_function is not None:
        first = descriptor[:, :1].long()
        key = (torch.arange(kv_length, device=device) + kv_offset)[None]
        for column, query in ((-2, first), (-1, first + q_length - 1)):
            descriptor[:, column] = mask_function(row, head, query, key).expand(batch_size, kv_length).sum(1)
        token = first + torch.arange(1, q_length, device=device)
        sees = mask_function(row, head, token, token - 1)
        descriptor[:, -DRAWN] = (~sees).expand(batch_size, q_length - 1).sum(1)
    if attention_mask is not None:
        valid = valid_keys(attention_mask, kv_length, kv_offset).to(device)
        descriptor[:, 2], descriptor[:, 3], counts = bounds_of(valid)
        assert_in_graph(descriptor[:, 3] - descriptor[:, 2] == counts, HOLES)
    return descriptor[:, None, None, :]


def assert_in_graph(held: torch.Tensor, message: str) -> None:
    """RuntimeError when the graph runs, unless all of ``held``; on a GPU without a synchronisation."""
    torch._assert_async(held.all(), message)


def boundaries(rows: torch.Tensor) -> torch.Tensor:
    """Where each sequence begins among the tokens of all rows, and one past the last; int32."""
    begins = torch.ones_like(rows, dtype=torch.bool)
    begins[:, 1:] = rows[:, 1:] != rows[:, :-1]
    first = begins.flatten().nonzero().flatten()
    return torch.cat((first, first.new_full((1,), rows.numel()))).to(torch.int32)


def chunks_begin(ends: torch.Tensor, rows: Any, mask_function: Any, pattern: Pattern | None) -> bool | None:
    """Whether a chunk begins where each packed sequence does, by the positions that masks count by."""
    positions = packed_positions(mask_function)
    if positions is None or pattern is None or pattern.chunk is None:
        return None
    first = positions.expand(rows.shape).flatten()[ends[:-1].long()]
    return not bool((first % pattern.chunk).any())


def valid_keys(attention_mask: torch.Tensor, kv_length: int, kv_offset: int) -> torch.Tensor:
    """The part of a model's 2-D mask that is about the keys at hand, bool (batch, kv_length): False past its end."""
    if attention_mask.dim() != 2:
        raise CallError(f"attention_mask has {attention_mask.dim()} dimensions; (batch, tokens) is supported")
    valid = attention_mask[:, kv_offset : kv_offset + kv_length].bool()
    return torch.nn.functional.pad(valid, (0, kv_length - valid.shape[1]))


def bounds_of(valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """First valid key, end of the valid keys and how many there are, each (batch,); a row of padding is 0, 0, 0."""
    place = torch.arange(valid.shape[1], device=valid.device)
    counts = valid.sum(1)
    first = torch.where(valid, place, valid.shape[1]).amin(1)
    end = torch.where(valid, place + 1, 0).amax(1)
    return torch.where(counts > 0, first, 0), end, counts


def check_padding(descriptor: torch.Tensor, counts: torch.Tensor, kv_length: int, pattern: Pattern | None) -> bool:
    """Whether there is any padding; CallError for a kind that cannot be told by a first and an end."""
    first, end = descriptor[:, 2], descriptor[:, 3]
    flags = torch.stack([(end - first != counts).any(), (counts < kv_length).any(), (first > 0).any()])
    holes, padded, left = flags.tolist()  # one synchronisation with the GPU
    if holes:
        raise CallError(HOLES)
    if left and pattern is not None and pattern.chunk is not None:
        raise CallError(MOVED.format(pattern.chunk))
    return padded


def is_descriptor(mask: Any) -> bool:
    """Whether ``mask`` is what ``describe_mask_call`` returns, or was before it lost its attribute."""
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.int32 or mask.dim() != 4:
        return False
    return mask.shape[1:3] == (1, 1) and mask.shape[3] in (COLUMNS, UNPADDED_COLUMNS, GRAPH_COLUMNS)


def read_mask(mask: Any, layer: int) -> Mask:
    """The ``Mask`` that a layer was given; CallError for anything but ours."""
    held = getattr(mask, "attngen", None)
    if isinstance(held, Mask):
        return held
    if isinstance(mask, torch.Tensor) and mask.dtype == torch.bool and mask.dim() == 4 and mask.shape[1] == 1:
        read = read_matrix(mask)
        if read is None:
            raise CallError(f"layer {layer} was given a mask of its own drawing; a 2-D attention_mask is supported")
        return read
    if mask is None:
        raise CallError(
            f"layer {layer} was given no mask of attngen's, as cross attention is not; a model's attention to its own "
            "tokens is supported"
        )
    if not is_descriptor(mask):
        given = f"a mask of shape {tuple(mask.shape)}" if isinstance(mask, torch.Tensor) else f"{type(mask).__name__}"
        raise CallError(f"layer {layer} was given {given} as its mask; a 2-D attention_mask, or none, is supported")
    descriptor = mask[:, 0, 0]
    offsets = descriptor[:, 0] - descriptor[:, 1]
    columns = descriptor.shape[1]
    drawn = None if columns == COLUMNS else Drawn(*descriptor[:, -DRAWN:].unbind(1), *descriptor[:, :2].unbind(1))
    key_range = None if columns == UNPADDED_COLUMNS else descriptor[:, 2:COLUMNS].contiguous()
    return Mask(offsets, key_range, None, None, drawn)


def within_chunk(mask: Mask, descriptor: Any, chunk: int, seq_k: int) -> Mask:
    """``mask`` of one query a sequence, of whose chunk the valid keys are: counted from the first key at hand."""
    position, first_key = descriptor[:, 0, 0, :2].unbind(-1)
    begin = position // chunk * chunk - first_key
    if mask.key_range is None:
        return replace(mask, key_range=torch.stack([begin.clamp_min(0), torch.full_like(begin, seq_k)], -1))
    first, end = mask.key_range.unbind(-1)
    return replace(mask, key_range=torch.stack([torch.maximum(first, begin), end], -1))


def read_matrix(matrix: torch.Tensor) -> Mask | None:
    """The ``Mask`` that a bool (batch, 1, seq_q, seq_k) draws, where its queries see all keys of one range up to their
    own position; None where they see others.

    For matrices that have lost their attribute, as where layers are spread over devices and a hook moves them.
    """
    seen = matrix[:, 0]
    _, seq_q, seq_k = seen.shape
    counts = seen.sum(-1, dtype=torch.int32)  # (batch, seq_q)
    first, end, _ = bounds_of(seen.any(1))
    row = (counts > 0).int().argmax(1)  # the first that sees a key, and what it sees ends at its position
    offsets = first + counts.gather(1, row[:, None])[:, 0] - 1 - row
    i = (offsets[:, None] + torch.arange(seq_q, device=seen.device))[..., None]
    j = torch.arange(seq_k, device=seen.device)
    drawn = (j <= i) & (j >= first[:, None, None]) & (j < end[:, None, None])
    if not torch.equal(drawn, seen):
        return None
    return Mask(offsets.int(), torch.stack([first, end], 1).int(), Pattern(causal=True), None)
