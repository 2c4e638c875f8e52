"""The GPUs we generate for: their limits and rates, as data, and which of them this machine has."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from attngen.errors import UsageError, did_you_mean

KIB = 1024
MIB = 1024 * KIB

# Practical share of a datasheet's rate where we have not measured: the share measured on an H100.
MATH_SHARE = 0.80  # 798 of 989 TFLOP/s, bf16 matrix product of 8192^3
BANDWIDTH_SHARE = 0.90  # 3006 of 3350 GB/s, copy counted read + written


@dataclass(frozen=True)
class Rates:
    """Practical matrix rates in FLOP/s by operand dtype; None where the chip has no such instruction."""

    float16: float
    bfloat16: float
    float8: float | None
    float32: float  # full precision on the vector units, not TF32


@dataclass(frozen=True)
class Target:
    """One GPU: what fits on it and how fast it is. Rates are what programs reach, not the datasheet's."""

    name: str
    device_names: tuple[str, ...]  # regular expressions, searched in torch.cuda.get_device_name()
    backend: Literal["cuda", "hip"]
    arch: int | str  # 90 for sm_90, "gfx942"
    warp_size: int
    sms: int
    shared_per_block: int  # bytes a program may have, opt-in
    shared_per_sm: int  # bytes
    registers_per_sm: int  # 32-bit registers
    registers_per_thread: int
    max_threads_per_sm: int
    l2_bytes: int
    memory_bandwidth: float  # bytes/s, read + written
    rates: Rates
    clock: float  # Hz, of the SMs under load
    exp2_per_clock: int = 16  # base-2 exponentials an SM starts each clock
    launch_overhead: float = 3e-6  # seconds on the GPU for a kernel that does nothing
    figures: Literal["measured", "estimated"] = "estimated"  # whether bandwidth and rates were measured

    @property
    def arch_name(self) -> str:
        """``sm_90`` or ``gfx942``."""
        return f"sm_{self.arch}" if isinstance(self.arch, int) else self.arch

    @property
    def exp2_rate(self) -> float:
        """Base-2 exponentials a second, whole chip."""
        return self.exp2_per_clock * self.sms * self.clock

    def peak_flops(self, dtype: str) -> float:
        """Practical FLOP/s of matrix products in ``dtype`` (float16, bfloat16, float32, any float8)."""
        rate: float | None = getattr(self.rates, "float8" if dtype.startswith("float8") else dtype, None)
        if rate is None:
            raise UsageError(f"{self.name} has no matrix products in {dtype}")
        return rate

    def why_too_large(self, shared: int) -> str | None:
        """Why no program has so many bytes of shared memory here; None where it can."""
        if shared <= self.shared_per_block:
            return None
        return f"{shared} bytes of shared memory; {self.name} has {self.shared_per_block}"

    def distance(self, other: Target) -> float:
        """How unlike two GPUs are to a tuner; infinite across makers, whose warps differ."""
        if self.backend != other.backend:
            return math.inf
        return (
            4.0 * (self.arch != other.arch)
            + abs(_generation(self) - _generation(other))
            + 2.0 * _octaves(self.shared_per_block, other.shared_per_block)
            + _octaves(self._intensity(), other._intensity())
            + 0.5 * _octaves(self.sms, other.sms)
        )

    def _intensity(self) -> float:
        return self.rates.bfloat16 / self.memory_bandwidth


def _generation(target: Target) -> int:
    return target.arch // 10 if isinstance(target.arch, int) else 0


def _octaves(a: float, b: float) -> float:
    return abs(math.log2(a / b))


def _datasheet(float16: float, float8: float | None, float32: float) -> Rates:
    """Rates from dense datasheet figures in TFLOP/s."""
    half = float16 * 1e12 * MATH_SHARE
    return Rates(half, half, None if float8 is None else float8 * 1e12 * MATH_SHARE, float32 * 1e12 * MATH_SHARE)


_H100 = Target(
    name="h100",
    device_names=(r"H100 80GB HBM3",),
    backend="cuda",
    arch=90,
    warp_size=32,
    sms=132,
    shared_per_block=227 * KIB,
    shared_per_sm=228 * KIB,
    registers_per_sm=65536,
    registers_per_thread=255,
    max_threads_per_sm=2048,
    l2_bytes=50 * MIB,
    memory_bandwidth=3.006e12,
    rates=Rates(float16=798e12, bfloat16=798e12, float8=1517e12, float32=54e12),
    clock=1.755e9,
    figures="measured",
)

_H200 = replace(_H100, name="h200", device_names=(r"\bH200\b",), l2_bytes=60 * MIB, memory_bandwidth=4.3e12)

_A100 = Target(
    name="a100",
    device_names=(r"A100",),
    backend="cuda",
    arch=80,
    warp_size=32,
    sms=108,
    shared_per_block=163 * KIB,
    shared_per_sm=164 * KIB,
    registers_per_sm=65536,
    registers_per_thread=255,
    max_threads_per_sm=2048,
    l2_bytes=40 * MIB,
    memory_bandwidth=2.039e12 * BANDWIDTH_SHARE,  # the 80 GB board
    rates=_datasheet(float16=312, float8=None, float32=19.5),
    clock=1.41e9,
)

_RTX4090 = Target(
    name="rtx4090",
    device_names=(r"RTX 4090(?! (D|Laptop))",),
    backend="cuda",
    arch=89,
    warp_size=32,
    sms=128,
    shared_per_block=99 * KIB,
    shared_per_sm=100 * KIB,
    registers_per_sm=65536,
    registers_per_thread=255,
    max_threads_per_sm=1536,
    l2_bytes=72 * MIB,
    memory_bandwidth=1.008e12 * BANDWIDTH_SHARE,
    rates=_datasheet(float16=165.2, float8=330.3, float32=82.6),  # accumulating in float32
    clock=2.52e9,
)

_B200 = Target(
    name="b200",
    device_names=(r"\bB200\b",),
    backend="cuda",
    arch=100,
    warp_size=32,
    sms=148,
    shared_per_block=227 * KIB,
    shared_per_sm=228 * KIB,
    registers_per_sm=65536,
    registers_per_thread=255,
    max_threads_per_sm=2048,
    l2_bytes=126 * MIB,
    memory_bandwidth=8.0e12 * BANDWIDTH_SHARE,
    rates=_datasheet(float16=2250, float8=4500, float32=75),
    clock=1.85e9,
)

_MI300X = Target(
    name="mi300x",
    device_names=(r"MI300X",),
    backend="hip",
    arch="gfx942",
    warp_size=64,
    sms=304,
    shared_per_block=64 * KIB,
    shared_per_sm=64 * KIB,
    registers_per_sm=131072,
    registers_per_thread=512,
    max_threads_per_sm=2048,
    l2_bytes=32 * MIB,  # 4 MiB for each of 8 dies; 256 MiB of Infinity Cache lie behind it
    memory_bandwidth=5.3e12 * BANDWIDTH_SHARE,
    rates=_datasheet(float16=1307, float8=2615, float32=163.4),
    clock=2.1e9,
)

TARGETS: dict[str, Target] = {t.name: t for t in (_H100, _H200, _A100, _RTX4090, _B200, _MI300X)}


def get_target(name: str) -> Target:
    """The target called ``name``; a UsageError that offers the nearest name when there is none."""
    target = TARGETS.get(name.lower())
    if target is not None:
        return target
    raise UsageError(f"unknown target '{name}'; {did_you_mean(name, TARGETS)}")


def nearest(target: Target, others: Iterable[Target]) -> list[Target]:
    """``others`` of the same maker, most similar first."""
    ranked = sorted((target.distance(other), other.name, other) for other in others if other.name != target.name)
    return [other for distance, _, other in ranked if math.isfinite(distance)]


def detect(device: int | None = None) -> Target | None:
    """The GPU torch would use now, or None. One that the table lacks is described from its properties."""
    import torch  # slow, and not needed to read the table

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device() if device is None else device)
    return from_properties(properties.name, properties)


def from_properties(device_name: str, properties: Any) -> Target:
    """The target for a device's name and ``torch.cuda.get_device_properties``."""
    for target in TARGETS.values():
        # The count of SMs tells a whole chip from a slice of it and from its lesser boards.
        if target.sms == properties.multi_processor_count and any(
            re.search(pattern, device_name) for pattern in target.device_names
        ):
            return target
    return _describe(device_name, properties)


def _describe(device_name: str, properties: Any) -> Target:
    """A target the table lacks: limits as reported, rates scaled from the nearest known architecture."""
    gcn = str(getattr(properties, "gcnArchName", "")).split(":")[0]
    hip = gcn.startswith("gfx")
    arch: int | str = gcn if hip else properties.major * 10 + properties.minor
    family = [t for t in TARGETS.values() if t.backend == ("hip" if hip else "cuda")]
    base = min(family, key=lambda t: abs(t.arch - arch) if isinstance(t.arch, int) and isinstance(arch, int) else 0)
    share = properties.multi_processor_count / base.sms
    kilohertz, bus_bits = getattr(properties, "memory_clock_rate", 0), getattr(properties, "memory_bus_width", 0)
    bandwidth = 2 * kilohertz * 1e3 * bus_bits / 8 * BANDWIDTH_SHARE or base.memory_bandwidth * share
    float8 = base.rates.float8 if hip or (isinstance(arch, int) and arch >= 89) else None
    return replace(
        base,
        name=slug(device_name),
        device_names=(re.escape(device_name),),
        arch=arch,
        warp_size=getattr(properties, "warp_size", base.warp_size),
        sms=properties.multi_processor_count,
        shared_per_block=getattr(properties, "shared_memory_per_block_optin", 0) or base.shared_per_block,
        shared_per_sm=getattr(properties, "shared_memory_per_multiprocessor", 0) or base.shared_per_sm,
        registers_per_sm=getattr(properties, "regs_per_multiprocessor", 0) or base.registers_per_sm,
        max_threads_per_sm=properties.max_threads_per_multi_processor,
        l2_bytes=getattr(properties, "L2_cache_size", 0) or base.l2_bytes,
        memory_bandwidth=bandwidth,
        rates=Rates(
            float16=base.rates.float16 * share,
            bfloat16=base.rates.bfloat16 * share,
            float8=None if float8 is None else float8 * share,
            float32=base.rates.float32 * share,
        ),
        figures="estimated",
    )


def slug(device_name: str) -> str:
    """A device's name as a file name and a word on the command line: ``NVIDIA H100 PCIe`` is ``h100-pcie``."""
    words = re.findall(r"[a-z0-9]+", device_name.lower())
    return "-".join(w for w in words if w not in {"nvidia", "amd", "geforce", "instinct", "tesla"}) or "gpu"
