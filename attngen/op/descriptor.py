"""Descriptors of tensors for the copy engine, without the tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def can_describe(tensor: torch.Tensor) -> bool:
    """Whether the copy engine takes this tensor: 16-byte aligned base and strides."""
    element = tensor.element_size()
    strides = tensor.stride()
    return tensor.data_ptr() % 16 == 0 and all(s * element % 16 == 0 and s > 0 for s in strides[:-1])


class Descriptor:
    """What the copy engine is told of tensors of one shape and strides; it holds no tensor, which would live on."""

    __slots__ = ("block_shape", "gluon", "shape", "strides")

    def __init__(self, tensor: torch.Tensor, box: Sequence[int], gluon: bool = False) -> None:
        self.shape = list(tensor.shape)
        self.strides = list(tensor.stride())
        self.block_shape = list(box)
        self.gluon = gluon

    def official(self, base: torch.Tensor) -> Any:
        """One tensor's, as Triton's own front end takes it."""
        if self.gluon:
            from triton.experimental.gluon import language as gl
            from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

            elements = {
                torch.bfloat16: gl.bfloat16,
                torch.float16: gl.float16,
                torch.float8_e4m3fn: gl.float8e4nv,
            }
            element = elements[base.dtype]
            layout = gl.NVMMASharedLayout.get_default_for(self.block_shape, element)
            return TensorDescriptor(base, self.shape, self.strides, self.block_shape, layout)
        from triton.tools.tensor_descriptor import TensorDescriptor as Portable

        return Portable(base, self.shape, self.strides, self.block_shape)
