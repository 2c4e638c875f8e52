"""Whether a call fits its kind: one clear error before anything is launched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from attngen.errors import CallError, did_you_mean, one_of
from attngen.plan.attention import AttentionPlan
from attngen.spec.model import DTYPES

ALWAYS_OPTIONAL = ("offsets", "key_range")
MAX_STRIDE = 2**22  # elements from one key or query to the next; kernels multiply it by those of a tile in 32 bits
MAX_EXACT_INT = 2**24  # numbers of expressions are float32 in a kernel


def keywords_of(plan: AttentionPlan) -> tuple[str, ...]:
    """Keywords of the op after q, k and v, in the order in which it takes them."""
    return tuple(argument.name for argument in plan.arguments) + ALWAYS_OPTIONAL


def ordered_keywords(plan: AttentionPlan, keywords: Mapping[str, Any]) -> list[Any]:
    """The values of ``keywords`` in the op's order; CallError for one too many or missing."""
    names = keywords_of(plan)
    for name in keywords:
        if name not in names:
            raise CallError(f"kind '{plan.kind.name}' takes no argument '{name}'; {did_you_mean(name, names)}")
    values: list[Any] = []
    for argument in plan.arguments:
        value = keywords.get(argument.name)
        if value is None:
            raise CallError(f"kind '{plan.kind.name}' needs the argument '{argument.name}': {argument.meaning}")
        values.append(
            _number(argument.name, value) if argument.shape == "scalar" else check_tensor(argument.name, value)
        )
    for name in ALWAYS_OPTIONAL:
        value = keywords.get(name)
        values.append(None if value is None else check_tensor(name, value))
    return values


def check_tensor(name: str, value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise CallError(f"'{name}' is {type(value).__name__}; a torch.Tensor is needed")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CallError(f"'{name}' is {type(value).__name__}; a Python number is needed")
    if isinstance(value, int) and abs(value) > MAX_EXACT_INT:
        raise CallError(f"'{name}' is {value}; whole numbers up to 2**24 are exact in float32 and allowed")
    return float(value)


def check_call(
    plan: AttentionPlan,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    extras: Mapping[str, Any],
    *,
    any_heads: bool = False,
) -> None:
    """CallError unless shapes, dtypes, devices and strides are those of the plan's kind.

    ``any_heads`` lets a check run fewer heads than the spec has, in the same groups.
    """
    kind = plan.kind
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        _check_device(name, tensor, q.device if isinstance(q, torch.Tensor) else None)
        if tensor.dim() != 4:
            raise CallError(f"{name} has shape {_shape(tensor)}; (batch, heads, sequence, dim) is needed")
        if tensor.dtype != getattr(torch, kind.torch_dtype):
            other = f", or load the spec with dtype='{_dtype(tensor)}'" if _dtype(tensor) in DTYPES else ""
            raise CallError(f"{name} is {_dtype(tensor)}; the spec says {kind.dtype}: convert it{other}")
        if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise CallError(
                f"{name} has stride {tensor.stride(-1)} in its last dimension; 1 is needed: call contiguous()"
            )
    group = kind.heads.group
    heads, kv_heads = (q.shape[1], k.shape[1]) if any_heads else (kind.heads.query, kind.heads.kv)
    dims = (
        ("q", q, heads, kind.head_dim.qk),
        ("k", k, kv_heads, kind.head_dim.qk),
        ("v", v, kv_heads, kind.head_dim.v),
    )
    for name, tensor, count, width in dims:
        if tensor.shape[1] != count:
            raise CallError(f"{name} has {tensor.shape[1]} heads, shape {_shape(tensor)}; the spec says {count}")
        if tensor.shape[3] != width:
            raise CallError(f"{name} has head_dim {tensor.shape[3]}, shape {_shape(tensor)}; the spec says {width}")
    if heads != kv_heads * group:
        raise CallError(f"{heads} query heads and {kv_heads} KV heads; the spec has {group} query heads a KV head")
    if not q.shape[0] == k.shape[0] == v.shape[0]:
        raise CallError(f"q, k and v have batches {q.shape[0]}, {k.shape[0]} and {v.shape[0]}; they must be equal")
    if k.shape[2] != v.shape[2]:
        raise CallError(f"k has {k.shape[2]} keys and v has {v.shape[2]}; they must be equal")
    for name, tensor in (("k", k), ("v", v)):
        if tensor.shape[2] > 1 and tensor.stride(2) > MAX_STRIDE:
            raise CallError(
                f"{name} has {tensor.stride(2)} elements from one key to the next; at most {MAX_STRIDE} are allowed: "
                "call contiguous()"
            )
    _check_extras(plan, q, k, extras)


def _check_extras(plan: AttentionPlan, q: torch.Tensor, k: torch.Tensor, extras: Mapping[str, Any]) -> None:
    batch, heads = q.shape[0], q.shape[1]
    if plan.kind.documents:
        batch = _documents(q, k, extras)
    for argument in plan.arguments:
        value = extras[argument.name]
        if argument.shape == "scalar":
            continue
        _check_device(argument.name, value, q.device)
        if argument.shape == "tensor":
            if value.dim() != argument.rank:
                raise CallError(
                    f"'{argument.name}' has {value.dim()} dimensions, shape {_shape(value)}; the spec indexes "
                    f"{argument.rank}"
                )
            if value.numel() == 0:
                raise CallError(f"'{argument.name}' is empty, shape {_shape(value)}; at least one element is needed")
            continue
        if argument.shape in ("scale", "kv scale"):
            _check_scale(argument.name, value, heads if argument.shape == "scale" else k.shape[1])
            continue
        if argument.shape == "lists":
            _check_lists(argument.name, value, argument.rank)
        elif argument.shape != "documents":
            count = heads if argument.shape == "heads" else batch
            _check_vector(argument.name, value, (count,), whole=argument.shape == "batch")
    if plan.kind.compress is not None and extras.get("offsets") is None:
        raise CallError(
            f"kind '{plan.kind.name}' compresses keys and needs 'offsets': the position of each sequence's first query "
            "among the keys that were compressed"
        )
    check_placed(batch, q.device, extras.get("offsets"), extras.get("key_range"))
    _check_reads(plan, q, k, extras, batch)


def _check_reads(plan: AttentionPlan, q: torch.Tensor, k: torch.Tensor, extras: Mapping[str, Any], batch: int) -> None:
    """CallError for a tensor of an expression that has more than one element along a symbol, but not all; one is read
    for every value. What only the call's values say is not known."""
    counts = {"b": (batch, "sequences"), "h": (q.shape[1], "heads")}
    if not plan.kind.documents:
        counts["j"] = (k.shape[2], "keys")
        if extras.get("offsets") is None:  # the last query sits at the last key
            counts["i"] = (k.shape[2], "positions")
    for name, place, symbol in plan.kind.read_by_symbol:
        value, (count, words) = extras[name], counts.get(symbol, (0, ""))
        if 1 < value.shape[place] < count:
            raise CallError(
                f"'{name}' has {value.shape[place]} {words}, shape {_shape(value)}; {symbol} is one of {count}"
            )


def _documents(q: torch.Tensor, k: torch.Tensor, extras: Mapping[str, Any]) -> int:
    """How many documents a call has; CallError unless both sides have as many, and where they can be read, they fit."""
    sides = {"cu_seqlens_q": q, "cu_seqlens_k": k}
    for name, tensor in sides.items():
        value = check_tensor(name, extras[name])
        if value.dim() != 1 or value.shape[0] < 2:
            raise CallError(f"'{name}' has shape {_shape(value)}; (documents + 1,), of a document or more, is needed")
        _check_vector(name, value, tuple(value.shape), whole=True)
        readable = type(value) is torch.Tensor and value.device.type == "cpu"  # on a GPU, looking would wait for it
        if readable and (int(value[0]) != 0 or int(value.diff().min()) < 0 or int(value[-1]) > tensor.shape[2]):
            raise CallError(
                f"'{name}' is {value.tolist()}; it must begin with 0, never fall, and end at most at the "
                f"{tensor.shape[2]} tokens there are"
            )
    counts = [len(extras[name]) - 1 for name in sides]
    if counts[0] != counts[1]:
        raise CallError(f"cu_seqlens_q has {counts[0]} documents and cu_seqlens_k {counts[1]}; they must be equal")
    if q.shape[0] != 1:
        raise CallError(f"packed q has batch {q.shape[0]}; documents are one row of tokens")
    return counts[0]


def check_placed(
    batch: int, device: torch.device, offsets: torch.Tensor | None, key_range: torch.Tensor | None
) -> None:
    """CallError unless what says where queries and valid keys are is of a batch of this size."""
    for name, value, shape in (("offsets", offsets, (batch,)), ("key_range", key_range, (batch, 2))):
        if value is not None:
            _check_device(name, value, device)
            _check_vector(name, value, shape, whole=True)


def _check_lists(name: str, value: torch.Tensor, rank: int) -> None:
    if value.dim() != rank or value.dtype != torch.int32 or not value.is_contiguous():
        raise CallError(f"'{name}' is {_shape(value)} of {_dtype(value)}; contiguous int32 of rank {rank} is needed")


def _check_vector(name: str, value: torch.Tensor, shape: tuple[int, ...], whole: bool) -> None:
    if tuple(value.shape) != shape:
        raise CallError(f"'{name}' has shape {_shape(value)}; {_words(shape)} is needed")
    if whole and value.dtype != torch.int32:
        raise CallError(f"'{name}' is {_dtype(value)}; int32 is needed")
    if not whole and not value.is_floating_point():
        raise CallError(f"'{name}' is {_dtype(value)}; a floating dtype is needed")
    if not value.is_contiguous():
        raise CallError(f"'{name}' is not contiguous; call contiguous()")


def _check_scale(name: str, value: torch.Tensor, heads: int) -> None:
    if value.numel() != 1 and tuple(value.shape) != (heads,):
        raise CallError(f"'{name}' has shape {_shape(value)}; one element or {_words((heads,))} is needed")
    if value.dtype != torch.float32:
        raise CallError(f"'{name}' is {_dtype(value)}; float32 is needed")
    if not value.is_contiguous():
        raise CallError(f"'{name}' is not contiguous; call contiguous()")


def _check_device(name: str, value: Any, device: torch.device | None) -> None:
    check_tensor(name, value)
    if device is not None and value.device != device:
        raise CallError(f"'{name}' is on {value.device} and q on {device}; one device is needed")
    if value.device.type not in ("cpu", "cuda", "meta"):
        raise CallError(f"'{name}' is on {value.device}; {one_of(['cuda', 'cpu'])} is needed")


def _shape(tensor: torch.Tensor) -> str:
    return _words(tuple(tensor.shape))


def _words(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"


def _dtype(tensor: torch.Tensor) -> str:
    """As the language calls it."""
    name = str(tensor.dtype).removeprefix("torch.")
    return "float8_e4m3" if name == "float8_e4m3fn" else name
