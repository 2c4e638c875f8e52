"""Launching a compiled kernel without Triton's front end, whose every call costs more than the rest of an op's."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Any

import triton

KNOWN = ("3.6.",)  # versions whose compiled kernels are called so
MOST_MAPS = 64  # kept of one descriptor; memory that an allocator hands out again and again has few addresses


class TensorMaps(dict[int, Any]):
    """What the copy engine reads of a descriptor, by the address of the tensor: encoding it takes microseconds."""

    def __init__(self, descriptor: Any, meta: dict[str, Any]) -> None:
        from triton.backends.nvidia.driver import TMA_DTYPE_DEVICE_TO_HOST

        self._encode = triton.runtime.driver.active.utils.fill_tma_descriptor
        element = TMA_DTYPE_DEVICE_TO_HOST[meta["elem_type"]]
        self._before = (meta["swizzle"], meta["elem_size"], element, meta["block_size"])
        self._after = (descriptor.shape, descriptor.strides, 0)  # zeros beyond the edges

    def __missing__(self, address: int) -> Any:
        if len(self) >= MOST_MAPS:
            self.clear()
        made = self[address] = self._encode(address, *self._before, *self._after)
        return made


class Direct:
    """A launch of a compiled kernel whose arguments are known but for what they point to."""

    def __init__(
        self, launch: Any, compiled: Any, grid: int, arguments: Sequence[Any], descriptors: Sequence[int]
    ) -> None:
        """``launch``: the kernel's runner, or the compiled launcher within it. ``arguments``: the kernel's, with None
        for pointers; those at ``descriptors`` have a shape and strides."""
        run, hooks = compiled.run, (None, None, None)
        scratch = (None, None)
        launching = () if launch is run else (run.launch_cooperative_grid, run.launch_pdl, *scratch)
        self._launch = launch
        self._before = (grid, 1, 1)
        self._after = (compiled.function, *launching, compiled.packed_metadata, *hooks)
        self._arguments: list[Any] = []
        self.places: list[int] = []  # where each of the kernel's arguments is among those of the launcher
        self.maps: dict[int, TensorMaps] = {}  # of each descriptor among the kernel's arguments
        metas = iter(getattr(compiled.metadata, "tensordesc_meta", None) or ())
        for n, argument in enumerate(arguments):
            self.places.append(len(self._arguments))
            if n in descriptors:
                self.maps[n] = TensorMaps(argument, next(metas))
                self._arguments += [None, *argument.shape, *argument.strides]
            else:
                self._arguments.append(argument)

    def arguments(self) -> list[Any]:
        """A launch's own, to be filled at ``places``: with addresses, or with what ``maps`` has for them."""
        return self._arguments.copy()

    def __call__(self, stream: int, arguments: Sequence[Any]) -> None:
        self._launch(*self._before, stream, *self._after, *arguments)


def direct_launch(compiled: Any, grid: int, arguments: Sequence[Any], descriptors: Sequence[int] = ()) -> Direct | None:
    """A launch of ``compiled``, of a stream and the arguments, pointers as integers.

    None where this Triton may be called another way, under ATTNGEN_SAFE_LAUNCH=1, when a kernel wants memory of its
    own, or when nothing was compiled, as in Triton's interpreter.
    """
    if compiled is None or not triton.__version__.startswith(KNOWN) or os.environ.get("ATTNGEN_SAFE_LAUNCH") == "1":
        return None
    run = compiled.run
    if getattr(run, "global_scratch_size", 0) or getattr(run, "profile_scratch_size", 0):
        return None
    if descriptors and not all(getattr(compiled.metadata, "tensordesc_meta", None) or (None,)):
        return None
    launch = _launcher_of(run) if compiled.metadata.target.backend == "cuda" else run
    return None if launch is None else Direct(launch, compiled, grid, arguments, descriptors)


def _launcher_of(run: Any) -> Any:
    """The compiled launcher within a runner, past what asks for memory and encodes descriptors; None where it is
    elsewhere."""
    launch = run.launch
    return inspect.getclosurevars(launch).nonlocals.get("launcher") if inspect.isfunction(launch) else launch
