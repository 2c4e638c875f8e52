"""The blocks of keys that a kind selects: by their mean keys, or by what a branch of compressed keys pays to them."""

from __future__ import annotations

from typing import Any

import torch

from attngen import reference
from attngen.database import Database
from attngen.op.compressed import compressed_bounds, compressed_range, first_positions, positions
from attngen.op.kernels import Launchers
from attngen.op.key_blocks import block_means, blocks_between
from attngen.op.key_bounds import key_bounds
from attngen.plan.block_select import plan_block_select
from attngen.plan.listed import blocks_of, lists_of
from attngen.spec.model import Kind

Tensor = torch.Tensor
Maybe = torch.Tensor | None
SCHEMA = (
    "(Tensor q, Tensor k, Tensor? lse=None, SymInt? seq_k=None, Tensor? offsets=None, Tensor? key_range=None) -> Tensor"
)


class BlockSelector:
    """(q, k, lse, seq_k, offsets, key_range) -> blocks, on each device.

    k are the keys, whose blocks are scored by their means; or where ``compressed`` is the branch that scores, its
    compressed keys, lse what it gave for q, and seq_k how many keys there are. blocks: int32 (batch, lists, seq_q,
    top_k), in ascending order and then -1.
    """

    def __init__(self, kind: Kind, compressed: Kind | None, db: Database | str | None) -> None:
        self.kind = kind
        self.blocks = blocks_of(kind)
        self.compressed = compressed
        self.launchers = Launchers(plan_block_select(kind, compressed), db)

    def cuda(
        self,
        q: Tensor,
        k: Tensor,
        lse: Maybe = None,
        seq_k: int | None = None,
        offsets: Maybe = None,
        key_range: Maybe = None,
    ) -> Tensor:
        """By a kernel."""
        seq_k = k.shape[2] if seq_k is None else seq_k
        sizes = q.shape[0], q.shape[2], seq_k
        bounds = key_bounds(self.kind, *sizes, q.device, offsets, key_range)
        block_first, block_end = blocks_between(*bounds, self.blocks.size)
        launcher = self.launchers.at(*sizes)
        if self.compressed is None:
            return launcher(q, block_means(k, self.blocks.size, key_range), block_first, block_end)
        first, end = compressed_bounds(
            positions(q, seq_k, offsets),
            seq_k,
            *self._windows,
            compressed=k.shape[2],
            causal=self.compressed.causal,
            key_range=key_range,
        )
        return launcher(q, k, block_first, block_end, lse=lse, key_first=first, key_end=end)

    def cpu(
        self,
        q: Tensor,
        k: Tensor,
        lse: Maybe = None,
        seq_k: int | None = None,
        offsets: Maybe = None,
        key_range: Maybe = None,
    ) -> Tensor:
        """By the reference."""
        placed: dict[str, Any] = {"offsets": offsets, "key_range": key_range}
        if self.compressed is None:
            scores = reference.mean_scores(self.kind, q, block_means(k, self.blocks.size, key_range))
            return reference.select_blocks(self.kind, scores, k.shape[2], **placed)
        assert seq_k is not None
        scores = reference.paid_scores(
            self.kind,
            self.compressed,
            q,
            k,
            -(-seq_k // self.blocks.size),
            offsets=first_positions(q, seq_k, offsets),
            key_range=compressed_range(seq_k, *self._windows, key_range),
        )
        return reference.select_blocks(self.kind, scores, seq_k, **placed)

    def fake(self, q: Tensor, *_: Any) -> Tensor:
        """Lists, not computed."""
        return q.new_empty((q.shape[0], lists_of(self.kind), q.shape[2], self.blocks.top_k), dtype=torch.int32)

    @property
    def _windows(self) -> tuple[int, int]:
        """Size and stride of compressed keys."""
        assert self.compressed is not None and self.compressed.compress is not None
        return self.compressed.compress.size, self.compressed.compress.stride
