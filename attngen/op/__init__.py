"""Ops: PyTorch operators over generated kernels, which pick a config and launch.

load              a spec as an Attention
Attention         a model's attention, an op a kind
KindOp            the op of one kind
Launcher          one config of a plan, callable with tensors
GatheredLauncher  the same of a plan for lists of keys
"""

from attngen.op.attention import Attention, KindOp, load
from attngen.op.choose import Chosen
from attngen.op.gathered import GatheredLauncher
from attngen.op.launch import Launcher

__all__ = ["Attention", "Chosen", "GatheredLauncher", "KindOp", "Launcher", "load"]
