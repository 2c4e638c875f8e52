"""Small models whose attention is attngen's, selecting by indexers whose products are exact."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from attngen.importer import import_config
from attngen.integrations.transformers import use_sparse_attention
from attngen.spec import Spec
from attngen.spec.model import Indexer
from tests.integrations.models import config, model

NAME = "attngen-test-sparse"
SHARING = "glm_moe_dsa sharing"


def spec_of(name: str, dtype: str = "bfloat16") -> Spec:
    """The model's spec, with the indexer in a dtype in which products of what the model gives it are exact."""
    spec = import_config(config(name).to_dict()).spec
    kinds = (replace(k, select=replace(k.select, indexer=in_dtype(k.select.indexer, dtype))) for k in spec.kinds)
    return replace(spec, kinds=tuple(kinds))


def in_dtype(indexer, dtype):
    return indexer and Indexer(indexer.heads, indexer.head_dim, dtype)


def replaced(name: str, dtype: torch.dtype = torch.float32, device: str = "cpu"):
    """A model of its own whose attention is attngen's."""
    made = copy.deepcopy(model(name)).to(device, dtype)
    use_sparse_attention(made, spec_of(name), name=NAME)
    return made


def attentions(made) -> list:
    """The attention module of each layer."""
    return [layer.self_attn for layer in made.model.layers]
