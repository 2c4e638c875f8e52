"""A launch of one kernel for tensors of one signature: every argument is known but what pointers point to, and few
numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from attngen.op import ready
from attngen.op.descriptor import Descriptor
from attngen.op.direct import Direct, direct_launch
from attngen.source import Source, load_source


class Bound:
    """A kernel with a grid, its numbers and its descriptors; a call gives the tensors.

    ``values``: by parameter, numbers and descriptors. ``tensors``: by parameter, which of a call's tensors it points
    to. ``constants``: by name, the compile-time parameters that the text leaves open. ``numbers``: parameters that a
    call gives, in this order; the kernel must not be specialised to them.
    """

    def __init__(
        self,
        source: Source,
        device: torch.device,
        grid: int,
        values: Mapping[str, Any],
        tensors: Mapping[str, int],
        constants: Mapping[str, Any] | None = None,
        numbers: Sequence[str] = (),
    ) -> None:
        self.source = source
        self.function = load_source(source)
        self.compiled: Any = None
        self._device = device
        self._grid = grid
        self._values = [values.get(name) for name in source.parameters]
        places = {name: n for n, name in enumerate(source.parameters)}
        self._pointers = [(places[name], n) for name, n in tensors.items() if name in places]
        self._numbers = [(places[name], n) for n, name in enumerate(numbers) if name in places]
        self._constants = dict(constants or {})
        self._direct: Direct | None = None

    def __call__(self, *tensors: torch.Tensor | None, numbers: Sequence[int] = ()) -> None:
        """Launch on the current stream of the device; the tensors have the shapes and strides of the first call's."""
        direct = self._direct
        if direct is None or self._device.index != torch._C._cuda_getDevice():
            self._first(tensors, numbers)
            return
        arguments, places = direct.arguments(), direct.places
        for position, n in self._pointers:
            tensor = tensors[n]
            if tensor is not None:
                maps, address = direct.maps.get(position), tensor.data_ptr()
                arguments[places[position]] = address if maps is None else maps[address]
        for position, n in self._numbers:
            arguments[places[position]] = numbers[n]
        direct(torch._C._cuda_getCurrentRawStream(self._device.index), arguments)

    def _first(self, tensors: Sequence[torch.Tensor | None], numbers: Sequence[int]) -> None:
        """Launch through Triton's own front end, which compiles what it has not compiled."""
        arguments = self._values.copy()
        for position, n in self._pointers:
            tensor, held = tensors[n], arguments[position]
            if tensor is not None:
                arguments[position] = held.official(tensor) if isinstance(held, Descriptor) else tensor
        for position, n in self._numbers:
            arguments[position] = numbers[n]
        options = self._constants | self.source.options
        if self._device.type != "cuda":
            self.function[(self._grid,)](*arguments, **options)
            return
        ready.wait()
        with torch.cuda.device(self._device):
            self.compiled = self.function[(self._grid,)](*arguments, **options)
        described = [n for n, value in enumerate(self._values) if isinstance(value, Descriptor)]
        self._direct = direct_launch(self.compiled, self._grid, [*self._values, *self._constants.values()], described)


def compiled_of(bounds: Iterable[Bound | None]) -> list[tuple[str, Any]]:
    """What Triton has compiled for launches so far, one a specialisation, each with its text's digest."""
    made = {one.compiled.hash: (one.source.digest, one.compiled) for one in bounds if one and one.compiled is not None}
    return list(made.values())
