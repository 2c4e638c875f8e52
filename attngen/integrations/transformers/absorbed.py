"""The forward of a model's latent attention, its expansion to heads absorbed into the queries and into the output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from attngen.errors import CallError
from attngen.integrations.transformers.attend import Attend
from attngen.integrations.transformers.indexing import index_keys, index_queries
from attngen.integrations.transformers.latents import cached, check_expansion, expansion, turned
from attngen.integrations.transformers.masks import Mask, is_descriptor
from attngen.op.no_backward import without_backward

QUERY_BYTES = 512 * 2**20  # of absorbed queries at a time: those of longer texts are made and attend in parts
PREVIOUS = "prev_topk_indices"  # transformers' name for the lists of the layer before
CACHE = ("cache", "past_key_values")  # transformers' name for the cache, and the one before 5.24
Placed = dict[str, torch.Tensor | None]  # offsets and key_range


@dataclass(frozen=True)
class Family:
    """What differs from one family of models to another."""

    index_rope: str  # the function of its module that turns an indexer's queries and keys
    returns_lists: bool  # whether attention returns its lists, for the layers after it


class Absorbed:
    """The forward of one attention module, over the latent: same arguments and results, but for what is cached.

    With W_UK and W_UV the parts of ``kv_b_proj`` that make keys and values of a latent c, q . (W_UK c) is
    (W_UK^T q) . c, and the sum of p W_UV c is W_UV times the sum of p c. So all heads read one row a key, c and its
    turned part, which is what the cache holds, as keys (batch, 1, seq, rank + rope) beside values of width 0; the
    indexer's keys are where transformers keeps them. Lists are int32 (batch, seq_q, top_k), keys in ascending order
    and then -1; or all keys, where there are no more.
    """

    def __init__(self, attend: Attend, layer: int, family: Family, name: str) -> None:
        self.attend = attend
        self.layer = layer
        self.family = family
        self.name = name

    def __call__(
        self,
        module: Any,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        **keywords: Any,
    ) -> tuple[torch.Tensor | None, ...]:
        """(out, None), and of families that return them the lists; with another attention, the module's own forward."""
        if not is_descriptor(attention_mask) and module.config._attn_implementation != self.name:
            return type(module).forward(module, hidden_states, position_embeddings, attention_mask, **keywords)
        op: Any = self.attend.attention(hidden_states.dtype).op(self.layer)
        dropout = module.attention_dropout if module.training else 0.0
        asked = {**keywords, "scaling": module.scaling, "dropout": dropout}
        mask = self.attend.mask(op.kind, self.layer, attention_mask, asked)
        check_expansion(module, self.layer, hidden_states)
        cache = next((keywords[name] for name in CACHE if keywords.get(name) is not None), None)

        def forward(hidden_states: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            text = Text(module, op, self.layer, self.family, hidden_states, position_embeddings, cache, mask)
            return text.attend(keywords.get(PREVIOUS))

        trained = module.parameters() if torch.is_grad_enabled() else ()
        out, lists = without_backward(forward, op.kind.name, hidden_states, *trained)
        return (out, None, lists) if self.family.returns_lists else (out, None)


class Text:
    """One call: the keys of all tokens so far, and the queries of those at hand, which attend in parts."""

    def __init__(
        self,
        module: Any,
        op: Any,
        layer: int,
        family: Family,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        cache: Any,
        mask: Mask,
    ) -> None:
        self.module, self.op, self.layer = module, op, layer
        self.hidden, self.positions, self.mask = hidden_states, position_embeddings, mask
        self.rope = getattr(sys.modules[type(module).__module__], family.index_rope)
        self.residual = module.q_a_layernorm(module.q_a_proj(hidden_states))
        self.keys = cached(module, layer, hidden_states, position_embeddings, cache)  # [batch, 1, seq_k, rank + rope]
        self.index_keys = None  # [batch, seq_k, dim]
        if module.indexer is not None:
            self.index_keys = index_keys(module.indexer, hidden_states, position_embeddings, cache, self.rope)

    def attend(self, lists: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What attention adds to the residual stream, and the lists of keys: the indexer's, or those given."""
        batch, seq_q, _ = self.hidden.shape
        seq_k, top_k = self.keys.shape[2], self.op.kind.select.top_k
        selects = self.index_keys is not None
        every = seq_k <= top_k
        if lists is None and not selects and not every:
            raise CallError(f"layer {self.layer} has no indexer, and no layer before it gave it '{PREVIOUS}'")
        outs, made = [], []
        for part in parts(seq_q, batch * self._query_bytes()):
            placed = self._placed(part)
            listed: dict[str, torch.Tensor] = {}
            if not every:
                indices = self._select(part, placed) if selects else lists[:, part]
                made.append(indices)
                listed = {"indices": indices, "topk_length": (indices >= 0).sum(-1, dtype=torch.int32)}
            outs.append(self._attend(part, listed, placed))
        if selects:
            everything = torch.arange(seq_k, dtype=torch.int32, device=self.hidden.device)
            lists = everything.expand(batch, seq_q, seq_k) if every else joined(made)
        return joined(outs), lists

    def _attend(self, part: slice, listed: dict[str, torch.Tensor], placed: Placed) -> torch.Tensor:
        """What the queries of one part, in which positions lie side by side, add: (batch, part, hidden)."""
        module = self.module
        to_keys, to_values = expansion(module)  # [heads, nope, rank], [heads, v, rank]
        heads, nope, rank = to_keys.shape
        q = module.q_b_proj(self.residual[:, part]).unflatten(-1, (heads, -1))  # [batch, part, heads, nope + rope]
        absorbed = q.new_empty(*q.shape[:3], rank + q.shape[-1] - nope)
        multiply(q[..., :nope], to_keys, absorbed[..., :rank])
        absorbed[..., rank:] = turned(module, q[..., nope:], self._positions(part))
        context = self.op(absorbed.transpose(1, 2), self.keys, **listed, **placed).transpose(1, 2)
        out = context.new_empty(*context.shape[:3], to_values.shape[1])
        multiply(context, to_values.transpose(1, 2), out)
        return module.o_proj(out.flatten(2))

    def _select(self, part: slice, placed: Placed) -> torch.Tensor:
        """The keys of the queries of one part, by the indexer."""
        positions = self._positions(part)
        index = index_queries(self.module.indexer, self.hidden[:, part], self.residual[:, part], positions, self.rope)
        return self.op.select(index[0], self.index_keys, index[1], **placed)

    def _positions(self, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = self.positions
        return cos[:, part], sin[:, part]

    def _placed(self, part: slice) -> Placed:
        """Where the queries of one part are, and which keys are valid."""
        batch, seq_q, _ = self.hidden.shape
        offsets = self.mask.offsets
        if part.start == 0 and part.stop == seq_q:
            return {"offsets": offsets, "key_range": self.mask.key_range}
        if offsets is None:
            first = self.keys.shape[2] - seq_q
            offsets = torch.full((batch,), first, dtype=torch.int32, device=self.hidden.device)
        return {"offsets": offsets + part.start, "key_range": self.mask.key_range}

    def _query_bytes(self) -> int:
        """Of one absorbed query."""
        return self.op.kind.heads.query * self.keys.shape[-1] * self.keys.element_size()


def parts(seq_q: int, row_bytes: int) -> Iterator[slice]:
    """All queries in parts of about equal length, of QUERY_BYTES or one query; counted, so that a graph knows many
    lengths by one number of parts."""
    count = max(-(-seq_q // max(QUERY_BYTES // row_bytes, 1)), 1)
    length = -(-seq_q // count)
    for n in range(count):
        yield slice(n * length, min((n + 1) * length, seq_q))


def joined(made: list[torch.Tensor]) -> torch.Tensor:
    """Parts as one, along the sequence."""
    return made[0] if len(made) == 1 else torch.cat(made, 1)


def multiply(rows: torch.Tensor, matrices: torch.Tensor, out: torch.Tensor) -> None:
    """Rows (batch, seq, heads, m) times a matrix a head (heads, m, n) into ``out``, of which the last dimension may be
    a part of a wider tensor's: without copies of either."""
    by_head, out_by_head = (x.flatten(0, 1).transpose(0, 1) for x in (rows, out))
    if torch.compiler.is_compiling():  # a graph takes no results with gaps between rows
        out_by_head.copy_(torch.bmm(by_head, matrices))
    else:
        torch.bmm(by_head, matrices, out=out_by_head)
