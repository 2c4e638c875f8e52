"""Hugging Face transformers (5.17 to 5.24) with attngen's ops as the attention of a model.

>>> from attngen.integrations.transformers import register
>>> register("examples/modernbert-base.yaml")
'attngen'
>>> model = AutoModel.from_pretrained(..., attn_implementation="attngen")

or ``model.set_attn_implementation("attngen")`` for a model that exists. Every layer then runs the op of its kind, in
the model's dtype; padding on either side and key/value caches, dynamic and static, are taken as they come. What the
model asks of a layer (mask, scale, softcap, sink) is compared with the spec on each call, so that a spec of another
model, or a window off by one, is an error and not a slightly different text. Models train as they do by their eager
attention, compiled or with gradient checkpointing (queries that see no key, as padding on the left, give 0, as by
SDPA); attention dropout and ``output_attentions`` are refused, and so are gradients of kinds that select keys. In a
model compiled as a whole windows are compared where the model names them to its layers, and what values alone say is
asserted as the graph runs: a RuntimeError, on a GPU one of the device's, for a first or last query that sees more or
fewer keys than by the spec, more or fewer queries that do not see the key before them, padding between tokens, padding
that moves chunks, packed sequences without ``cu_seq_lens_q``, and a cache that has let go what a kind counts from.

DeepSeek-V3.2 and GLM-5 select keys by an indexer of their own and expand a latent to keys and values for each head.
``use_sparse_attention(model, spec)`` puts attngen's attention to the latent in the place of both: no memory of queries
x keys, and a cache of latents.
"""

from attngen.integrations.transformers.register import register
from attngen.integrations.transformers.sparse import use_sparse_attention

__all__ = ["register", "use_sparse_attention"]
