"""Ops: PyTorch operators over generated kernels, which pick a config and launch.

load         a spec as an Attention
Attention    a model's attention, an op a kind
KindOp       the op of one kind
SparseOp     the op of a kind that selects keys by an indexer's scores
Selector     that selection by itself
BlockOp      the op of a kind that selects blocks of keys
BranchedOp   the op of a kind in branches, summed by gates
Launcher     one config of a plan, callable with tensors
"""

from attngen.op.attention import Attention, load
from attngen.op.blocks import BlockOp
from attngen.op.branches import BranchedOp
from attngen.op.choose import Chosen
from attngen.op.kind import KindOp
from attngen.op.launch import Launcher
from attngen.op.selector import Selector
from attngen.op.sparse import SparseOp

__all__ = ["Attention", "BlockOp", "BranchedOp", "Chosen", "KindOp", "Launcher", "Selector", "SparseOp", "load"]
