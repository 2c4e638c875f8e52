"""Where one kernel makes all gradients, blocks of keys add to those of queries in turn: both sides must agree on which
blocks there are, or a program would wait for ever."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attngen.plan.backward import plan_backward
from attngen.plan.forward import plan_forward
from attngen.plan.numbers import evaluate
from attngen.spec.model import HeadDim, Heads, Kind, Window
from tests.plan.strategies import masked_kinds

lengths = st.integers(1, 90)
windows = st.builds(Window, st.integers(0, 40), st.integers(0, 40))


@st.composite
def plain_kinds(draw):
    """Kinds with a bounded window or without, and whatever else there is beside it."""
    if draw(st.booleans()):
        return draw(masked_kinds(mask=st.none()))
    window = draw(st.one_of(st.none(), windows))
    return Kind("kind", Heads(1, 1), HeadDim(16, 16), causal=draw(st.booleans()), window=window)


def by_keys(plan, block, block_m, block_n, sizes):
    """Tiles of queries that a block of keys goes over, as ``ranges_of`` in the generated code has them."""
    seq_q, offset, key_first, key_end = sizes
    j_first, j_last = max(block * block_n, key_first), min((block + 1) * block_n, key_end) - 1
    query_end = offset + seq_q if j_first <= j_last else offset
    values = {"i_first": j_first, "i_last": j_last, "key_first": offset, "key_end": query_end}
    loop = plan.loops[0]
    first, end = (int(evaluate(edge, values)) for edge in (loop.outer_first, loop.outer_end))
    if end <= first:
        return range(0)
    return range((first - offset) // block_m, -(-(end - offset) // block_m))


def by_queries(loop, tile, block_m, block_n, sizes):
    """Blocks of keys that add to a tile of queries, as ``blocks_of`` in the generated code has them."""
    seq_q, offset, key_first, key_end = sizes
    i_first = tile * block_m + offset
    values = {"i_first": i_first, "i_last": min(i_first + block_m, seq_q + offset) - 1}
    values |= {"key_first": key_first, "key_end": key_end}
    first, end = (int(evaluate(edge, values)) for edge in (loop.outer_first, loop.outer_end))
    return range(first // block_n, (end - 1) // block_n + 1) if end > first else range(0)


@settings(max_examples=150, deadline=None)
@given(plain_kinds(), lengths, lengths, st.integers(-30, 60), st.data())
def test_both_sides_agree(kind, seq_q, seq_k, shift, data):
    plan = plan_backward(kind).fused
    assume(plan is not None)
    block_m, block_n = data.draw(st.sampled_from([(4, 8), (8, 16), (16, 8), (1, 3)]))
    key_first = data.draw(st.integers(0, seq_k))
    sizes = (seq_q, seq_k - seq_q + shift, key_first, data.draw(st.integers(key_first, seq_k)))
    tiles, blocks = -(-seq_q // block_m), -(-seq_k // block_n)
    visited = {(tile, block) for block in range(blocks) for tile in by_keys(plan, block, block_m, block_n, sizes)}
    loop = plan_forward(kind).loops[0]
    added = {(tile, block) for tile in range(tiles) for block in by_queries(loop, tile, block_m, block_n, sizes)}
    assert visited == added


def test_of_what_there_is_one_kernel():
    def fused(**fields):
        return plan_backward(Kind("kind", Heads(4, 2), HeadDim(128, 128), **fields)).fused

    assert fused(causal=True, window=Window(1023, 0)) is not None
    assert fused(window=Window(300, 200), sink=True) is not None
    assert fused(causal=True) is not None and fused() is not None
    assert fused(causal=True, prefix="argument") is None and fused(causal=True, dilation=2) is None
    assert fused(causal=True, window=Window(1023, 0), chunk=4096) is None
    assert fused(causal=True, window=Window(1023, 0), always_first=4) is None
    assert fused(causal=True, window=Window(1023, 0), documents=True) is None
