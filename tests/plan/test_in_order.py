"""Of which kinds one kernel makes all gradients: where blocks of keys can add to those of queries in their order."""

from attngen.plan.backward import plan_backward
from attngen.spec.model import HeadDim, Heads, Kind, Window


def test_of_what_there_is_one_kernel():
    def fused(**fields):
        return plan_backward(Kind("kind", Heads(4, 2), HeadDim(128, 128), **fields)).fused

    assert fused(causal=True, window=Window(1023, 0)) is not None
    assert fused(window=Window(300, 200), sink=True) is not None
    assert fused(causal=True) is not None and fused() is not None
    assert fused(causal=True, prefix="argument") is None and fused(causal=True, dilation=2) is None
    assert fused(window=Window(None, 300)) is not None
    assert fused(window=Window(300, None)) is None  # later blocks have more to do
    assert fused(causal=True, window=Window(1023, 0), chunk=4096) is None
    assert fused(causal=True, window=Window(1023, 0), always_first=4) is None
    assert fused(causal=True, window=Window(1023, 0), documents=True) is None
