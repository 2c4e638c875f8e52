"""The systems that attngen is measured against: which are installed, what each can do, and its call for a case."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from attngen.bench import flex
from attngen.bench.packed import longest_of, tokens_of
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
    sinks: bool = False  # whether it computes them
    only_backward: bool = False  # forward it is another peer
    packed: Callable[[Kind, dict[str, Any]], Call] | None = None  # ``make`` for packed documents

    def missing(self) -> str:
        """Why it cannot be used here, or nothing."""
        return missing_module(self.module)

    def left_out(self, kind: Kind) -> str:
        """What of a kind it computes without, for a row's note."""
        return "without the sink" if kind.sink and not self.sinks else ""


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


def missing_module(module: str) -> str:
    """Why a system that is a module cannot be used here, or nothing."""
    return f"{module} is not installed" if module and not _importable(module) else ""


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # the package that it lies in is not there, or broken
        return False


def _fa3(kind: Kind, inputs: dict[str, Any]) -> Call:
    from flash_attn_interface import flash_attn_func

    refuse(kind, allowed={"causal", "window", "softcap", "sink", "FP8"}, name="FA3")
    q, k, v = _heads_last(inputs)
    options = _fa3_options(kind)
    if kind.softcap is not None:
        options["softcap"] = kind.softcap
    if kind.quantised:
        options |= _descales(inputs, k.shape[2])

    def call() -> Any:
        return flash_attn_func(q, k, v, **options)

    return call


def _fa3_options(kind: Kind) -> dict[str, Any]:
    """What FA3 is told of a kind, packed or not."""
    left, right = (None, None) if kind.window is None else (kind.window.left, kind.window.right)
    size = (-1 if left is None else left, 0 if kind.causal else -1 if right is None else right)
    return {"softmax_scale": kind.scale, "causal": kind.causal, "window_size": size}


def _fa3_varlen(kind: Kind, inputs: dict[str, Any]) -> Call:
    from flash_attn_interface import flash_attn_varlen_func

    refuse(replace(kind, documents=False), allowed={"causal", "window"}, name="FA3")
    return partial(flash_attn_varlen_func, **tokens_of(inputs), **longest_of(inputs), **_fa3_options(kind))


def _descales(inputs: dict[str, Any], kv_heads: int) -> dict[str, torch.Tensor]:
    """The scales as FA3 takes them: one for each KV head of each sequence, those of q too."""
    batch = inputs["q"].shape[0]
    if inputs["q_scale"].numel() not in (1, kv_heads):
        raise Unsupported("FA3 has one scale for the queries of a KV head")
    return {f"{name}_descale": inputs[f"{name}_scale"].reshape(1, -1).expand(batch, kv_heads) for name in "qkv"}


def _fa4(kind: Kind, inputs: dict[str, Any], deterministic: bool = False) -> Call:
    from flash_attn.cute import flash_attn_func  # type: ignore[import-not-found]

    refuse(kind, allowed={"causal", "window", "softcap", "sink"}, name="FA4")
    q, k, v = _heads_last(inputs)
    options = _fa4_options(kind, flash_attn_func, deterministic)
    if kind.softcap is not None:
        options["softcap"] = kind.softcap
    if kind.sink:
        options["learnable_sink"] = inputs["sink"]

    def call() -> Any:
        return flash_attn_func(q, k, v, **options)

    return call


def _fa4_options(kind: Kind, function: Callable[..., Any], deterministic: bool) -> dict[str, Any]:
    """What FA4's ``function`` is told of a kind, packed or not."""
    left, right = (None, None) if kind.window is None else (kind.window.left, kind.window.right)
    options: dict[str, Any] = {
        "softmax_scale": kind.scale,
        "causal": kind.causal,
        "window_size": (left, right),  # None is open; causal closes the right side by itself
    }
    if deterministic:
        if "deterministic" not in inspect.signature(function).parameters:
            raise Unsupported("this FA4 has no deterministic backward pass")
        options["deterministic"] = True
    return options


def _fa4_varlen(kind: Kind, inputs: dict[str, Any], deterministic: bool = False) -> Call:
    from flash_attn.cute import flash_attn_varlen_func

    refuse(replace(kind, documents=False), allowed={"causal", "window"}, name="FA4")
    options = _fa4_options(kind, flash_attn_varlen_func, deterministic)
    return partial(flash_attn_varlen_func, **tokens_of(inputs), **longest_of(inputs), **options)


def _heads_last(inputs: dict[str, Any]) -> list[torch.Tensor]:
    """q, k and v as (batch, sequence, heads, dim) views."""
    return [inputs[name].transpose(1, 2) for name in "qkv"]


def refuse(kind: Kind, allowed: set[str], name: str) -> None:
    """Unsupported where ``kind`` says more than ``allowed``; a sink is left out by those that lack it."""
    neutral = Kind(kind.name, kind.heads, kind.head_dim)
    said = [name for name in vars(kind) if getattr(kind, name) != getattr(neutral, name)]
    more = [name for name in said if name not in allowed | {"dtype", "scale"}]
    if more:
        raise Unsupported(f"{name} has no {', '.join(more)}")
    if kind.quantised and "FP8" not in allowed:
        raise Unsupported(f"{name} has no FP8")


PEERS = {
    peer.name: peer
    for peer in (
        Peer("sdpa", "SDPA", _sdpa(None)),
        Peer("cudnn", "cuDNN SDPA", _sdpa(SDPBackend.CUDNN_ATTENTION)),
        Peer("fa2", "FA2 (SDPA flash)", _sdpa(SDPBackend.FLASH_ATTENTION)),
        Peer("flex", "FlexAttention", flex.make, packed=flex.make_documents),
        Peer("fa3", "FA3", _fa3, "flash_attn_interface", packed=_fa3_varlen),
        Peer("fa4", "FA4", _fa4, "flash_attn.cute", sinks=True, packed=_fa4_varlen),
        Peer(
            "fa4-deterministic",
            "FA4 deterministic",
            partial(_fa4, deterministic=True),
            "flash_attn.cute",
            only_backward=True,
            packed=partial(_fa4_varlen, deterministic=True),
        ),
    )
}


class System(Protocol):
    """What all peers have, whatever they are called with."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def module(self) -> str: ...

    def missing(self) -> str: ...


S = TypeVar("S", bound=System)


def chosen(names: str, systems: Mapping[str, S]) -> list[S]:
    """The systems of a list such as ``sdpa,flex``; ``none`` is an empty one, ``all`` has every system."""
    if names.strip() in ("", "none"):
        return []
    if names.strip() == "all":
        return list(systems.values())
    found = []
    for name in (part.strip() for part in names.split(",")):
        if name not in systems:
            raise UsageError(f"unknown system '{name}'; {did_you_mean(name, systems)}")
        found.append(systems[name])
    return list(dict.fromkeys(found))


def versions(peers: Sequence[System]) -> dict[str, str]:
    """The version of each package that ``peers`` come from and that is not part of torch."""
    packages = importlib.metadata.packages_distributions()
    found = {}
    for peer in peers:
        if not peer.module or peer.missing():
            continue
        # Several packages may share a folder, as flash-attn and flash-attn-4 do: the one that has the module's file.
        for name in dict.fromkeys(packages.get(peer.module.partition(".")[0], ())):
            if _has(name, peer.module):
                found[name] = importlib.metadata.version(name)
    if any(peer.name == "cudnn" for peer in peers) and torch.backends.cudnn.is_available():
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


def _has(package: str, module: str) -> bool:
    path = module.replace(".", "/")
    files = {str(file) for file in importlib.metadata.files(package) or ()}
    return f"{path}.py" in files or f"{path}/__init__.py" in files


def reset() -> None:
    """Forget compiled graphs between cases: past a few recompiles FlexAttention runs unfused, and says nothing."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
