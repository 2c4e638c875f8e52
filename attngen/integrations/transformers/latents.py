"""The latent of a model's attention: its rows as they are cached, and the weights that expand them to heads."""

from __future__ import annotations

import sys
from typing import Any

import torch

from attngen.errors import CallError

ROPE = "apply_rotary_pos_emb_interleave"  # the function of a model's module that turns queries and keys
PLAIN = (torch.float16, torch.bfloat16, torch.float32)


def cached(
    module: Any, layer: int, hidden: torch.Tensor, positions: tuple[torch.Tensor, torch.Tensor], cache: Any
) -> torch.Tensor:
    """The keys of every token so far, (batch, 1, seq_k, rank + rope), of which those of ``hidden`` are entered into
    ``cache``, where there is one."""
    rank = module.kv_lora_rank
    compressed = module.kv_a_proj_with_mqa(hidden)
    latent = module.kv_a_layernorm(compressed[..., :rank])
    rotary = turned(module, compressed[:, :, None, rank:], positions)[:, :, 0]
    keys = torch.cat([latent, rotary], -1).unsqueeze(1)
    if cache is None:
        return keys
    held = cache.layers[layer].keys if layer < len(cache.layers) else None
    if held is not None and held.dim() == 4 and held.shape[1::2] != keys.shape[1::2]:
        heads, dim = held.shape[1::2]
        raise CallError(
            f"layer {layer}: the cache holds {heads} heads of keys {dim} wide, of another attention; latents are one "
            f"head {keys.shape[-1]} wide: begin a new cache"
        )
    return cache.update(keys, keys[..., :0], layer)[0]


def turned(module: Any, x: torch.Tensor, positions: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """(batch, seq, heads, rope), turned by the positions as the model's attention does it."""
    return turn(getattr(sys.modules[type(module).__module__], ROPE), x, positions)


def turn(rope: Any, x: torch.Tensor, positions: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """(batch, seq, heads, dim) turned by a model's function of queries and keys, of which there are none."""
    return rope(x, x[:, :, :0], *positions, unsqueeze_dim=2)[0]


def expansion(module: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What makes of a latent the keys without position and the values of each head: (heads, nope, rank) and (heads, v,
    rank), views of a weight."""
    nope = module.qk_nope_head_dim
    weight = module.kv_b_proj.weight.unflatten(0, (-1, nope + module.v_head_dim))
    return weight[:, :nope], weight[:, nope:]


def check_expansion(module: Any, layer: int, hidden: torch.Tensor | None = None) -> None:
    """CallError unless ``kv_b_proj`` is a weight and nothing else, on the device and in the dtype of the hidden states
    where those are given: what it would do to latents is done to queries and outputs."""
    linear = module.kv_b_proj
    needed = "a torch.nn.Linear without bias, whose weight is a plain tensor, is needed to attend to latents"
    if type(linear) is not torch.nn.Linear or linear.bias is not None:
        raise CallError(f"layer {layer}: kv_b_proj is a {type(linear).__name__} ({linear.extra_repr()}); {needed}")
    weight = linear.weight
    if type(weight) not in (torch.Tensor, torch.nn.Parameter) or weight.dtype not in PLAIN:
        raise CallError(f"layer {layer}: kv_b_proj.weight is {type(weight).__name__} of {weight.dtype}; {needed}")
    if hidden is not None and (weight.dtype, weight.device) != (hidden.dtype, hidden.device):
        raise CallError(
            f"layer {layer}: kv_b_proj.weight is {weight.dtype} on {weight.device}; {hidden.dtype} on {hidden.device}, "
            "as the hidden states are, is needed"
        )
