"""Launching attention over chosen blocks: queries sorted by their blocks, blocks attended to, results merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from attngen.config import Config
from attngen.errors import CallError
from attngen.op.arguments import empty_outputs
from attngen.op.bound import Bound, compiled_of
from attngen.op.descriptor import Descriptor, can_describe
from attngen.op.expected import check_expected, check_lists, check_rows, check_sink
from attngen.op.launch import Kept, signature_of
from attngen.op.parts import WORKSPACE_BYTES, Part, Sizes, Workspace
from attngen.plan.routed import RoutedPlan
from attngen.source import Source, render, render_routing
from attngen.source.routed import ENTRIES, MERGED_ROWS, WORDS, routed_boxes

# Tensors in the order in which launches take them: of a call, its results, and the workspace.
CALL = ("q_ptr", "k_ptr", "v_ptr", "blocks_ptr", "sink_ptr", "offsets_ptr", "key_range_ptr", "out_ptr", "lse_ptr")
PLACES = {name: n for n, name in enumerate((*CALL, *(f"{name}_ptr" for name in Workspace._fields)))}
NUMBERS = Part._fields


class RoutedLauncher:
    """One config of a plan, ready to be called with tensors of any lengths.

    A call takes q (batch, heads, seq_q, qk dim), k (batch, kv heads, seq_k, qk dim), v (batch, kv heads, seq_k, v dim)
    and blocks, int32, (batch, heads or kv heads as the kind selects them, seq_q, top_k): of each query, the blocks
    that it chose, in any order and none twice; what is not 0 to blocks - 1 is none. It returns (out, lse), and waits
    for nothing. ``workspace_bytes`` bounds the memory of results of single blocks: queries go through it in parts, and
    out and lse are the same to the bit whatever the parts. Under TRITON_INTERPRET=1 it takes CPU tensors.
    """

    def __init__(self, plan: RoutedPlan, config: Config, workspace_bytes: int = WORKSPACE_BYTES) -> None:
        self.plan = plan
        self.config = config
        self.workspace_bytes = workspace_bytes
        self.source = render(plan, config)
        self.routing = render_routing(plan)
        self._kept: Kept[Prepared] = Kept()

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        blocks: torch.Tensor,
        *,
        sink: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
        key_range: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tensors = (q, k, v, blocks, sink, offsets, key_range)
        key = signature_of(tensors)
        prepared = self._kept.get(key)
        if prepared is None:
            check_routed_call(self.plan, tensors)
            prepared = self._kept.keep(key, Prepared(self, tensors[:4]))
        return prepared(tensors)

    def attention_source(self, k: torch.Tensor, v: torch.Tensor) -> tuple[Source, Config]:
        """The kernel of attention and its config: by pointers where the copy engine does not take keys and values."""
        if self.config["loads"] == "pointer" or (can_describe(k) and can_describe(v)):
            return self.source, self.config
        config = self.config.replace(loads="pointer")
        return render(self.plan, config), config

    def sources(self) -> list[str]:
        """Digests of the texts that a call compiles."""
        return list(dict.fromkeys(source.digest for source in (self.source, *self.routing.values())))

    def compiled(self) -> list[tuple[str, Any]]:
        """What Triton has compiled for the calls so far, one a specialisation, each with its text's digest."""
        return compiled_of(bound for prepared in self._kept.values() for bound in prepared.bounds)


class Prepared:
    """Launches for tensors of one signature, whose every argument is known but the pointers and the part."""

    def __init__(self, launcher: RoutedLauncher, tensors: Sequence[torch.Tensor]) -> None:
        plan, (q, k, v, blocks) = launcher.plan, tensors
        self.v_dim = plan.kind.head_dim.v
        self.empty = 0 in (q.shape[0], q.shape[2], k.shape[2], blocks.shape[-1])
        self.bounds: tuple[Bound, ...] = ()
        if not self.empty:
            source, config = launcher.attention_source(k, v)
            batch, lists, seq_q, top_k = blocks.shape
            sizes = Sizes(
                batch,
                lists,
                seq_q,
                top_k,
                blocks=-(-k.shape[2] // plan.select.size),
                heads=plan.heads_of_list,
                v_dim=self.v_dim,
                partials=getattr(torch, plan.partials),
                rows=int(config["BLOCK_M"] or 0),
            )
            self.parts = sizes.parts(launcher.workspace_bytes)
            self.sizes = sizes
            self.bounds = _bounds(launcher, source, config, sizes, self.parts[0], tensors)

    def __call__(self, tensors: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        q = tensors[0]
        out, lse = empty_outputs(q, self.v_dim)
        if self.empty:
            return out.zero_(), lse.fill_(float("-inf"))
        workspace = self.sizes.workspace(self.parts[0], q.device)
        mark, count, order, attend, merge = self.bounds
        given = (*tensors, out, lse, *workspace)
        for part in self.parts:
            workspace.zeroed.zero_()
            mark(*given, numbers=part)
            count(*given)
            torch.cumsum(workspace.sizes, 0, out=workspace.ends)
            order(*given, numbers=part)
            attend(*given, numbers=part)
            merge(*given, numbers=part)
        return out, lse


def _bounds(
    launcher: RoutedLauncher, source: Source, config: Config, sizes: Sizes, part: Part, tensors: Sequence[torch.Tensor]
) -> tuple[Bound, ...]:
    """The launches of one part: those that sort its queries, attention, and the one that merges."""
    q, k, v, blocks = tensors
    plan, device = launcher.plan, q.device
    out, _ = empty_outputs(q, plan.kind.head_dim.v)
    values: dict[str, Any] = {"heads": q.shape[1], "seq_q": q.shape[2], "seq_k": k.shape[2], "top_k": sizes.top_k}
    values |= {"lists": sizes.lists, "blocks": sizes.blocks, "words": sizes.words(part)}
    for letter, tensor in (("q", q), ("k", k), ("v", v), ("i", blocks), ("o", out)):
        # The stride of a single element is never used.
        strides = (tensor.stride(n) if tensor.shape[n] > 1 else 0 for n in range(3))
        values |= {f"stride_{letter}{axis}": stride for axis, stride in zip("bhs", strides, strict=True)}
    places = PLACES
    if config["loads"] == "descriptor":
        boxes = routed_boxes(plan, config)
        values |= {name: Descriptor({"k": k, "v": v}[of], box) for name, (of, box) in boxes.items()}
        places = PLACES | {name: PLACES[f"{of}_ptr"] for name, (of, _) in boxes.items()}

    def bound(kernel: Source, grid: int, **constants: Any) -> Bound:
        return Bound(kernel, device, grid, values, places, constants, NUMBERS)

    routing, rows = launcher.routing, part.part_lists * part.queries * plan.heads_of_list
    steps, block_m = -(-sizes.entries(part) // ENTRIES), config["BLOCK_M"]
    return (
        bound(routing["mark"], steps, BLOCK=ENTRIES),
        bound(routing["count"], sizes.segments(part), BLOCK_M=block_m, BLOCK=WORDS),
        bound(routing["order"], steps, BLOCK_M=block_m, BLOCK=ENTRIES),
        bound(source, sizes.tiles(part), BLOCK_M=block_m, BLOCK_N=config["BLOCK_N"]),
        bound(routing["merge"], -(-rows // MERGED_ROWS), BLOCK_M=MERGED_ROWS),
    )


def check_routed_call(plan: RoutedPlan, tensors: Sequence[Any]) -> None:
    """CallError unless shapes, dtypes, devices and strides are those of the plan's kind."""
    q, k, v, blocks, sink, offsets, key_range = tensors
    kind = plan.kind
    check_rows(kind, {"q": q, "k": k, "v": v})
    batch, heads, seq_q, _ = q.shape
    if heads % kind.heads.group:
        raise CallError(f"q has {heads} heads; {kind.heads.group} share a KV head")
    kv_heads, seq_k, dtype = heads // kind.heads.group, k.shape[2], q.dtype
    if blocks.dim() != 4:
        raise CallError(f"blocks has shape {tuple(blocks.shape)}; (batch, lists, seq_q, top_k) is needed")
    expected: dict[str, tuple[Any, tuple[int, ...], torch.dtype | None]] = {
        "k": (k, (batch, kv_heads, seq_k, kind.head_dim.qk), dtype),
        "v": (v, (batch, kv_heads, seq_k, kind.head_dim.v), dtype),
        "q": (q, (batch, heads, seq_q, kind.head_dim.qk), dtype),
        "blocks": (blocks, (batch, heads // plan.heads_of_list, seq_q, blocks.shape[-1]), torch.int32),
        "sink": (sink, (heads,), None),
        "offsets": (offsets, (batch,), torch.int32),
        "key_range": (key_range, (batch, 2), torch.int32),
    }
    check_expected(expected, q.device)
    check_lists("blocks", blocks)
    check_sink(kind, sink)
