"""Making attngen known to transformers under a name."""

from __future__ import annotations

import re
from collections.abc import Callable
from os import PathLike
from typing import Any

import torch

from attngen.database import Database
from attngen.errors import UsageError
from attngen.integrations.transformers.attend import DTYPES, Attend
from attngen.integrations.transformers.masks import mask_call
from attngen.op.attention import spec_of
from attngen.plan import plan_forward
from attngen.plan.gathered import plan_gathered
from attngen.plan.kernels import selects_keys
from attngen.spec import Spec

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
MEANT_OTHERWISE = ("flash", "sdpa", "flex", "eager", "paged")  # transformers treats names that contain these apart


def register(
    spec: str | PathLike[str] | Spec,
    *,
    name: str = "attngen",
    db: Database | str | None = None,
    strict: bool = True,
) -> str:
    """Let models of transformers attend by ``spec`` with ``attn_implementation=name``; returns the name.

    spec: path of a YAML file, or a Spec; its dtype does not matter, each call runs in the model's. db: where tuned
    configs are looked up, as for ``attngen.load``. strict: refuse a layer of the model that asks for another mask or
    score than the spec's; False runs the spec's pattern whatever the model's own is (StreamingLLM on Llama, say), and
    arguments of the pattern are keywords of the model's call.

    Models with an indexer of their own, DeepSeek-V3.2 and GLM-5, select keys by it, which makes scores of queries x
    heads x keys and needs a mask of queries x keys, and expand what they cache to keys and values for each head.
    ``use_sparse_attention`` replaces both.

    Registering a name again replaces it. Raises SpecError and UsageError, and NotGeneratedError for kinds whose
    kernels do not exist yet.
    """
    spec = spec_of(spec)
    packed = [kind.name for kind in spec.kinds if kind.documents]
    if packed:
        raise UsageError(
            f"kind '{packed[0]}' has documents; leave them out: models say themselves where sequences are packed"
        )
    attend = Attend(spec, db, strict)
    enter(name, spec, attend, mask_call)
    for dtype in DTYPES:
        attend.attention(dtype)  # ops are made now, which a graph could not hold
    return name


def enter(name: str, spec: Spec, attend: Callable[..., Any], masks: Callable[..., torch.Tensor]) -> None:
    """Enter an attention function, the kernels of whose spec must exist, and what makes its masks into transformers'
    tables."""
    check_name(name)
    for kind in spec.kinds:
        _ = plan_gathered(kind) if selects_keys(kind) else plan_forward(kind)
    try:
        from transformers import AttentionInterface
        from transformers.masking_utils import AttentionMaskInterface
    except ImportError as error:
        raise UsageError("transformers 5.17 or later is needed: pip install 'attngen[transformers]'") from error
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, masks)


def check_name(name: str) -> None:
    """UsageError for a name that transformers would read as something else."""
    reserved = next((word for word in MEANT_OTHERWISE if word in name.lower()), None)
    if reserved is not None:
        raise UsageError(f"'{name}' contains '{reserved}', which transformers treats apart; 'attngen' would be right")
    if not NAME.fullmatch(name):
        raise UsageError(f"'{name}' cannot name an attention; letters, digits, '_' and '-' would be right")
