"""attngen's sparse attention in place of a model's own: indexer, selection and attention to the latent."""

from __future__ import annotations

import weakref
from os import PathLike
from types import MethodType
from typing import Any

import torch

from attngen.database import Database
from attngen.errors import CallError, UsageError, one_of
from attngen.integrations.transformers.absorbed import Absorbed, Family
from attngen.integrations.transformers.attend import Attend
from attngen.integrations.transformers.checks import check_layer, check_selection
from attngen.integrations.transformers.latents import check_expansion
from attngen.integrations.transformers.masks import describe_mask_call
from attngen.integrations.transformers.register import enter
from attngen.plan.indexer import plan_indexer
from attngen.plan.kernels import selects_keys
from attngen.spec import Kind, Spec, load_spec

FAMILIES = {  # indexers turn halves, or pairs of neighbours
    "deepseek_v32": Family("apply_rotary_pos_emb", returns_lists=False),
    "glm_moe_dsa": Family("apply_rotary_pos_emb_interleave", returns_lists=True),
}
HOOKED = "_old_forward"  # accelerate's name for the forward around which its hooks are, as where layers are spread


def use_sparse_attention(
    model: Any,
    spec: str | PathLike[str] | Spec,
    *,
    name: str = "attngen-sparse",
    db: Database | str | None = None,
    strict: bool = True,
) -> str:
    """Let ``model``, DeepSeek-V3.2 or GLM-5, select keys and attend to them by ``spec``; returns the attention's name.

    The model's own attention scores keys in float32, batch x queries x heads x keys of them, and expands its latent to
    keys and values for each head, in its cache as well. This one scores through a workspace that does not grow with
    length, as the spec says, attends to the latent and caches it: one row of rank + rope numbers a token, and the
    indexer's keys. Masks are four numbers a sequence, and queries of long texts attend in parts.

    The forward of each attention module is replaced; parameters stay where they are, and every projection but
    ``kv_b_proj`` is called as a module. The model is set to attention ``name``, which is registered for this model
    alone; with any other its forwards are its own again, and its caches are no longer these. Results differ from the
    model's own by rounding, and where scores of keys differ by no more than that, in which are selected. spec, db and
    strict: as of ``register``. There is no backward pass: it is refused where a gradient is asked for.

    Raises UsageError for a model of another family, CallError where the model is not the spec's or ``kv_b_proj`` is not
    a plain linear map, and what ``register`` raises; nothing is replaced then.
    """
    if not isinstance(spec, Spec):
        spec = load_spec(spec)
    config = model.config.get_text_config()
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise UsageError(f"model_type is '{config.model_type}'; the attention of {one_of(FAMILIES)} can be replaced")
    attend = Attend(spec, db, strict)
    chosen = []
    for module in (module for module in model.modules() if hasattr(module, "kv_b_proj") and hasattr(module, "indexer")):
        layer = check_layer(spec, module, strict)
        check_kind(spec.kind(spec.layer_kinds[layer]), layer, module, strict)
        check_expansion(module, layer)
        chosen.append((module, layer))
    only = OnlyModel(config, name)
    enter(name, spec, only.attend, only.masks)
    for module, layer in chosen:
        called = HOOKED if hasattr(module, HOOKED) else "forward"
        setattr(module, called, MethodType(Absorbed(attend, layer, family, name), module))
        attend.attention(module.kv_b_proj.weight.dtype)  # ops are made now, which a graph could not hold
    model.set_attn_implementation(name)
    return name


def check_kind(kind: Kind, layer: int, module: Any, strict: bool) -> None:
    """CallError or NotGeneratedError unless an attention module can attend by ``kind``."""
    if not selects_keys(kind) or kind.latent is None:
        raise CallError(
            f"layer {layer} of the model attends to selected rows of a latent; the spec's kind '{kind.name}' has "
            f"{'no latent' if kind.latent is None else 'a latent and selects none'}"
        )
    if strict:
        check_selection(kind, layer, module)
    indexed = kind.select is not None and kind.select.indexer is not None
    if indexed:
        plan_indexer(kind)
    elif module.indexer is not None:
        raise CallError(f"layer {layer} of the model has an indexer; the spec's kind '{kind.name}' has none")


class OnlyModel:
    """What transformers' tables hold for one model, by its config: masks, and CallError for any other model."""

    def __init__(self, config: Any, name: str) -> None:
        self._config = weakref.ref(config)
        self._refusal = (
            f"attention '{name}' is that of another model; use_sparse_attention(model, spec, name=...) would be right"
        )

    def masks(self, *, config: Any = None, **arguments: Any) -> torch.Tensor:
        """The descriptor of a call's mask."""
        if config is not self._config():
            raise CallError(self._refusal)
        return describe_mask_call(**arguments)

    def attend(self, *_: Any, **__: Any) -> Any:
        """Attention of a module whose forward has not been replaced."""
        raise CallError(self._refusal)
