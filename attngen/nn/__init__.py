"""Modules of PyTorch that attend by a spec.

Attention    the attention of one layer
"""

from attngen.nn.attention import Attention

__all__ = ["Attention"]
