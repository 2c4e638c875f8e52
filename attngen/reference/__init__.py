"""The reference: what every kernel must compute, in float64 and plain PyTorch.

attention      softmax(score(q k^T)) v over the keys that each query sees
visible        which keys those are
listed         which keys a list holds
index_scores   a lightning indexer's score of every key for every query
select_keys    the keys with the largest scores, one list a query
key_bounds     the keys that each query may select, as an interval
"""

from attngen.reference.attend import attention, dequantised, listed, scored, visible
from attngen.reference.select import index_scores, key_bounds, select_keys

__all__ = ["attention", "dequantised", "index_scores", "key_bounds", "listed", "scored", "select_keys", "visible"]
