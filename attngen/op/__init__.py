"""Ops: PyTorch operators over generated kernels, which pick a config and launch.

load         a spec as an Attention
Attention    a model's attention, an op a kind
KindOp       the op of one kind
SparseOp     the op of a kind that selects keys by an indexer's scores
Selector     that selection by itself
Launcher     one config of a plan, callable with tensors
"""

from attngen.op.attention import Attention, KindOp, load
from attngen.op.choose import Chosen
from attngen.op.launch import Launcher
from attngen.op.selector import Selector
from attngen.op.sparse import SparseOp

__all__ = ["Attention", "Chosen", "KindOp", "Launcher", "Selector", "SparseOp", "load"]
