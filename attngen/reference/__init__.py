"""The reference: what every kernel must compute, in float64 and plain PyTorch.

attention      softmax(score(q k^T)) v over the keys that each query sees
gradients      of attention, for every input that has one
gradient_sizes what errors of their factors may make of them
learned_shares what each pair adds to the gradient of what a score reads
visible        which keys those are
listed         which keys a list holds
index_scores   a lightning indexer's score of every key for every query
select_keys    the keys with the largest scores, one list a query
key_bounds     the keys that each query may select, as an interval
mean_keys      the mean of each block of keys (MoBA)
mean_scores    the score of every block for every query, by its mean key
paid_scores    the same, by what a branch of compressed keys pays to it (NSA)
block_bounds   the blocks that hold keys which each query may see, as an interval
select_blocks  the blocks with the largest scores, one list a query
keys_of_blocks lists of blocks as lists of their keys
"""

from attngen.reference.attend import attention, dequantised, listed, scored, visible
from attngen.reference.blocks import block_bounds, keys_of_blocks, mean_keys, mean_scores, paid_scores, select_blocks
from attngen.reference.gradients import gradient_sizes, gradients, learned_shares
from attngen.reference.select import index_scores, key_bounds, select_keys

__all__ = [
    "attention",
    "block_bounds",
    "dequantised",
    "gradient_sizes",
    "gradients",
    "index_scores",
    "key_bounds",
    "keys_of_blocks",
    "learned_shares",
    "listed",
    "mean_keys",
    "mean_scores",
    "paid_scores",
    "scored",
    "select_blocks",
    "select_keys",
    "visible",
]
