"""The run-time parameters of a forward kernel, in order, and which of them vary too much to compile for."""

from __future__ import annotations

from dataclasses import dataclass

from attngen.config import Config
from attngen.plan.attention import AttentionPlan
from attngen.plan.boxes import is_gluon
from attngen.plan.forward import ForwardPlan
from attngen.plan.hopper import VISITS


@dataclass(frozen=True)
class Parameter:
    """A parameter of the kernel and the comment beside it."""

    name: str
    comment: str = ""


LISTS = ("", "", "", "batch or 1, heads or 1, lists", "batch or 1, heads or 1, lists, entries")  # by rank


def parameters(plan: ForwardPlan, config: Config) -> tuple[Parameter, ...]:
    """The kernel's run-time parameters, in order."""
    if is_gluon(config):
        return _hopper_parameters(plan, config)
    descriptors = config.get("loads") == "descriptor"
    out = [Parameter("q_ptr", shape_of(plan, "heads", "seq_q", "qk dim"))]
    for name, dim, chunks in (("k", "qk dim", plan.qk_chunks), ("v", "v dim", plan.v_chunks)):
        held = shape_of(plan, "kv heads", "seq_k", dim)
        if descriptors:
            out += [Parameter(f"{name}_desc_{c.index}", f"{held}, boxes of BLOCK_N x {c.width}") for c in chunks]
        else:
            out.append(Parameter(f"{name}_ptr", held))
    out.append(Parameter("out_ptr", shape_of(plan, "heads", "seq_q", "v dim")))
    out += _other_parameters(plan)
    tensors = ("q", "out") if descriptors else ("q", "k", "v", "out")
    for tensor in tensors:
        letter = tensor[0]
        out += [Parameter(f"stride_{letter}{axis}") for axis in axes(plan)]
    return (*out, Parameter("heads", "query heads"), *lengths(plan))


def shape_of(plan: AttentionPlan, heads: str, sequence: str, dim: str) -> str:
    """A tensor's shape, for the comment beside its parameter."""
    if plan.kind.documents:
        return f"[{sequence.replace('seq', 'tokens')}, {heads}, {dim}]"
    return f"[batch, {heads}, {sequence}, {dim}]"


def axes(plan: AttentionPlan) -> str:
    """Of what strides there are: documents have no batch."""
    return "hs" if plan.kind.documents else "bhs"


def list_parameters(plan: AttentionPlan) -> list[Parameter]:
    """How lists of blocks lie: [batch or 1, heads or 1, lists, entries]."""
    if plan.kind.blocks is None:
        return []
    return [
        Parameter("lists_b", "heads of the lists of a sequence, 0 where sequences share them"),
        Parameter("lists_h", "1, or 0 where heads share them"),
        Parameter("lists", "of a head"),
        Parameter("entries", "of a list"),
    ]


def lengths(plan: AttentionPlan) -> list[Parameter]:
    """How many queries and keys there are; of documents, in all."""
    if not plan.kind.documents:
        return [Parameter("seq_q"), Parameter("seq_k"), *list_parameters(plan)]
    return [Parameter("tokens_q", "queries in all"), Parameter("tokens_k", "keys in all"), Parameter("documents")]


def _hopper_parameters(plan: ForwardPlan, config: Config) -> tuple[Parameter, ...]:
    """Everything large comes and goes by the copy engine."""
    rows = "QUERIES of PACK_HEADS heads" if int(config.get("PACK_HEADS") or 1) > 1 else "ROWS"
    out = []
    for name, heads, seq, dim, chunks, box in (
        ("q", "heads", "seq_q", "qk dim", plan.qk_chunks, rows),
        ("k", "kv heads", "seq_k", "qk dim", plan.qk_chunks, "BLOCK_N"),
        ("v", "kv heads", "seq_k", "v dim", plan.v_chunks, "BLOCK_N"),
        ("out", "heads", "seq_q", "v dim", plan.v_chunks, rows),
    ):
        held = shape_of(plan, heads, seq, dim)
        out += [Parameter(f"{name}_desc_{c.index}", f"{held}, boxes of {box} x {c.width}") for c in chunks]
    if plan.kind.documents:  # the last rows of each go without the copy engine
        out.append(Parameter("out_ptr", shape_of(plan, "heads", "seq_q", "v dim")))
    out += _other_parameters(plan)
    if config["schedule"] == "hopper":
        out.append(Parameter("ticket_ptr", f"[1 + {VISITS} x programs], int32, 0 before and after a launch"))
        out.append(Parameter("tile_count", "tiles of queries in all"))
        out.append(Parameter("heads_together", "heads whose tiles run side by side and share the L2 cache"))
    if plan.kind.documents:
        out += [Parameter(f"stride_o{axis}") for axis in axes(plan)]
    return (*out, Parameter("heads", "query heads"), *lengths(plan))


def _other_parameters(plan: ForwardPlan) -> list[Parameter]:
    """lse, where positions begin, and what the spec leaves to run time."""
    rows = "[heads, tokens_q]" if plan.kind.documents else "[batch, heads, seq_q]"
    return [Parameter("lse_ptr", f"{rows}, float32, natural log, contiguous"), *given_parameters(plan)]


def given_parameters(plan: AttentionPlan) -> list[Parameter]:
    """Where positions begin, and what the spec leaves to run time."""
    batch = "documents" if plan.kind.documents else "batch"
    out = [
        Parameter("offsets_ptr", f"[{batch}], position of the first query, or None for seq_k - seq_q"),
        Parameter("key_range_ptr", f"[{batch}, 2], first and end of the valid keys, or None for all"),
    ]
    for argument in plan.arguments:
        if argument.shape == "scalar":
            out.append(Parameter(f"{argument.name}_value", argument.meaning))
        elif argument.shape in ("scale", "kv scale"):
            out.append(Parameter(f"{argument.name}_ptr", argument.meaning))
            out.append(Parameter(f"{argument.name}_stride", "0 where there is one for all heads, else 1"))
        elif argument.shape == "tensor":
            out.append(Parameter(f"{argument.name}_ptr", argument.meaning))
            out += [
                Parameter(f"{argument.name}_{what}_{n}") for n in range(argument.rank) for what in ("size", "stride")
            ]
        else:
            shapes = {"batch": batch, "documents": "documents + 1", "lists": LISTS[argument.rank]}
            shape = shapes.get(argument.shape, argument.shape)
            out.append(Parameter(f"{argument.name}_ptr", f"[{shape}], {argument.meaning}"))
    return out


def unspecialised(plan: AttentionPlan, persistent: bool = False) -> list[str]:
    """Parameters that vary from call to call: a new value must not ask for a compilation."""
    names = ["tile_count", "heads_together"] if persistent else []
    names += ["heads", *(parameter.name for parameter in lengths(plan))]
    for argument in plan.arguments:
        if argument.shape == "tensor":
            names += [f"{argument.name}_size_{n}" for n in range(argument.rank)]
            names += [f"{argument.name}_stride_{n}" for n in range(argument.rank - 1)]
    return names
