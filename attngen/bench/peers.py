"""The systems that attngen is measured against: which are installed, what each can do, and its call for a case."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from attngen.bench import flex
from attngen.errors import UsageError, did_you_mean
from attngen.spec.model import Kind

Call = Callable[[], Any]


class Unsupported(Exception):
    """A peer that cannot do a case, and why."""


@dataclass(frozen=True)
class Peer:
    """One system. ``make`` gives the call for a kind and its inputs, or raises Unsupported."""

    name: str
    title: str
    make: Callable[[Kind, dict[str, Any]], Call]
    module: str = ""  # what must be installed

    def missing(self) -> str:
        """Why it cannot be used here, or nothing."""
        if self.module and importlib.util.find_spec(self.module) is None:
            return f"{self.module} is not installed"
        return ""


def _sdpa(backend: SDPBackend | None) -> Callable[[Kind, dict[str, Any]], Call]:
    def make(kind: Kind, inputs: dict[str, Any]) -> Call:
        refuse(kind, allowed={"causal", "sink"}, name="SDPA")
        q, k, v = inputs["q"], inputs["k"], inputs["v"]
        options: dict[str, Any] = {"is_causal": kind.causal, "scale": kind.scale}
        if kind.heads.group > 1:
            options["enable_gqa"] = True

        def call() -> Any:
            return scaled_dot_product_attention(q, k, v, **options)

        if backend is None:
            return call

        def call_backend() -> Any:
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(q, k, v, **options)

        return call_backend

    return make


def _fa3(kind: Kind, inputs: dict[str, Any]) -> Call:
    from flash_attn_interface import flash_attn_func

    refuse(kind, allowed={"causal", "window", "softcap", "sink"}, name="FA3")
    q, k, v = (inputs[name].transpose(1, 2) for name in "qkv")  # (batch, sequence, heads, dim) views
    left, right = (None, None) if kind.window is None else (kind.window.left, kind.window.right)
    size = (-1 if left is None else left, 0 if kind.causal else -1 if right is None else right)
    options: dict[str, Any] = {"softmax_scale": kind.scale, "causal": kind.causal, "window_size": size}
    if kind.softcap is not None:
        options["softcap"] = kind.softcap

    def call() -> Any:
        return flash_attn_func(q, k, v, **options)

    return call


def refuse(kind: Kind, allowed: set[str], name: str) -> None:
    """Unsupported where ``kind`` says more than ``allowed``; a sink is left out by those that lack it."""
    neutral = Kind(kind.name, kind.heads, kind.head_dim)
    said = [name for name in vars(kind) if getattr(kind, name) != getattr(neutral, name)]
    more = [name for name in said if name not in allowed | {"dtype", "scale"}]
    if more:
        raise Unsupported(f"{name} has no {', '.join(more)}")


PEERS = {
    peer.name: peer
    for peer in (
        Peer("sdpa", "SDPA", _sdpa(None)),
        Peer("cudnn", "cuDNN SDPA", _sdpa(SDPBackend.CUDNN_ATTENTION)),
        Peer("fa2", "FA2 (SDPA flash)", _sdpa(SDPBackend.FLASH_ATTENTION)),
        Peer("flex", "FlexAttention", flex.make),
        Peer("fa3", "FA3", _fa3, "flash_attn_interface"),
    )
}
DEFAULT_AGAINST = "sdpa,cudnn,flex,fa3"


def chosen(names: str) -> list[Peer]:
    """The peers of a list such as ``sdpa,flex``; ``none`` is an empty one."""
    if names.strip() in ("", "none"):
        return []
    peers = []
    for name in (part.strip() for part in names.split(",")):
        if name not in PEERS:
            raise UsageError(f"unknown system '{name}'; {did_you_mean(name, PEERS)}")
        peers.append(PEERS[name])
    return list(dict.fromkeys(peers))


def left_out(kind: Kind) -> str:
    """What of a kind the peers compute without, for a row's note."""
    return "without the sink" if kind.sink else ""


def reset() -> None:
    """Forget compiled graphs between cases: past a few recompiles FlexAttention runs unfused, and says nothing."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
