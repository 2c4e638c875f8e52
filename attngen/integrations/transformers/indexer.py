"""attngen's indexer in place of a model's own, whose scores are queries x heads x keys in float32."""

from __future__ import annotations

import sys
import weakref
from os import PathLike
from types import MethodType
from typing import Any

import torch

from attngen.database import Database
from attngen.errors import CallError, UsageError, one_of
from attngen.integrations.transformers.attend import Attend
from attngen.integrations.transformers.checks import check_layer, check_selection
from attngen.integrations.transformers.masks import describe_mask_call, is_descriptor, read_mask
from attngen.integrations.transformers.register import enter
from attngen.op import Selector
from attngen.plan.indexer import plan_indexer
from attngen.spec import Spec, load_spec

# The function of each model's module that turns an indexer's queries and keys: halves, or pairs of neighbours.
ROPE = {"deepseek_v32": "apply_rotary_pos_emb", "glm_moe_dsa": "apply_rotary_pos_emb_interleave"}


def use_indexer(
    model: Any,
    spec: str | PathLike[str] | Spec,
    *,
    name: str = "attngen-indexer",
    db: Database | str | None = None,
    strict: bool = True,
) -> str:
    """Let attngen select the keys of ``model`` as well as attend to them; returns the name of that attention.

    The model's own indexer makes float32 scores of batch x queries x heads x keys, and adds a mask of queries x keys:
    64 heads and 32768 tokens make that 256 GiB a layer. This one takes the module's projections, norms, RoPE and cache,
    quantises as the spec says, and selects through a workspace that does not grow with length; its masks are four
    numbers a sequence.

    It changes modules of one model, and which keys are selected where scores differ by no more than rounding; so it is
    a call of its own, and nothing that ``register`` does unasked. The forward of each indexer is replaced, parameters
    stay where they are, and the model is set to attention ``name``, which is registered for this model alone. With any
    other attention its indexers are its own again. spec, db and strict: as of ``register``.

    Raises UsageError for a model whose indexers are not known, CallError where they are not the spec's, and what
    ``register`` raises.
    """
    if not isinstance(spec, Spec):
        spec = load_spec(spec)
    text_config = model.config.get_text_config()
    model_type = text_config.model_type
    if model_type not in ROPE:
        raise UsageError(f"model_type is '{model_type}'; the indexers of {one_of(ROPE)} can be replaced")
    selectors = {}
    for kind in spec.kinds:
        if kind.select is not None and kind.select.indexer is not None:
            plan_indexer(kind)  # NotGeneratedError before anything is replaced
            selectors[kind.name] = Selector(kind, db)
    chosen = []
    for module in (module for module in model.modules() if getattr(module, "indexer", None) is not None):
        layer = check_layer(spec, module, strict)
        kind = spec.kind(spec.layer_kinds[layer])
        if kind.name not in selectors:
            raise CallError(f"layer {layer} of the model has an indexer; the spec's kind '{kind.name}' has none")
        if strict:
            check_selection(kind, layer, module)
        chosen.append((module.indexer, selectors[kind.name]))
    enter(name, Attend(spec, db, strict), Descriptors(text_config, name))
    for indexer, selector in chosen:
        indexer.forward = MethodType(Selecting(selector, ROPE[model_type]), indexer)
    model.set_attn_implementation(name)
    return name


class Selecting:
    """The forward of a model's indexer module, by a selector: same arguments, same indices, but for their order.

    Lists are int32 (batch, seq_q, top_k), keys in ascending order and then -1; or all keys, where there are no more.
    """

    def __init__(self, selector: Selector, rope: str) -> None:
        self.selector = selector
        self.rope = rope

    @torch.compiler.disable  # its kernels are no torch operators, which a graph could hold
    @torch.no_grad()
    def __call__(
        self,
        indexer: Any,
        hidden_states: torch.Tensor,
        q_resid: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
    ) -> torch.Tensor:
        """The keys of each query; hidden_states and q_resid are (batch, seq_q, dim), attention_mask what
        ``Descriptors`` made, without its second dimension."""
        own = type(indexer).forward
        if not is_descriptor(attention_mask[:, None]):
            arguments = (hidden_states, q_resid, position_embeddings, attention_mask, position_ids)
            return own(indexer, *arguments, past_key_values=past_key_values)
        batch, seq_q, _ = hidden_states.shape
        turn = getattr(sys.modules[own.__module__], self.rope)
        turned = indexer.qk_rope_head_dim
        q = indexer.wq_b(q_resid).view(batch, seq_q, indexer.n_heads, indexer.head_dim)
        k = indexer.k_norm(indexer.wk(hidden_states)).unsqueeze(2)  # (batch, seq_q, 1, dim)
        q_turned, k_turned = turn(q[..., :turned], k[..., :turned], *position_embeddings, unsqueeze_dim=2)
        q = torch.cat([q_turned, q[..., turned:]], -1)
        k = torch.cat([k_turned, k[..., turned:]], -1).squeeze(2)
        if past_key_values is not None:
            k = past_key_values.update_indexer(k, indexer.layer_idx)
        seq_k = k.shape[1]
        if seq_k <= self.selector.top_k:
            return torch.arange(seq_k, dtype=torch.int32, device=k.device).expand(batch, seq_q, seq_k)
        projected = indexer.weights_proj(hidden_states.to(indexer.weights_proj.weight.dtype)).float()
        weights = projected * (indexer.n_heads * indexer.head_dim) ** -0.5
        mask = read_mask(attention_mask[:, None], indexer.layer_idx)
        return self.selector(q.transpose(1, 2), k, weights, offsets=mask.offsets, key_range=mask.key_range)


class Descriptors:
    """The masks of one model whose indexers take descriptors; CallError for any other, whose own would not."""

    def __init__(self, config: Any, name: str) -> None:
        self._config = weakref.ref(config)
        self.name = name

    def __call__(self, *, config: Any = None, **arguments: Any) -> torch.Tensor:
        if config is not self._config():
            raise CallError(
                f"attention '{self.name}' is that of another model; use_indexer(model, spec, name=...) would be right"
            )
        return describe_mask_call(**arguments)
