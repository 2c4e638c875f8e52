"""Random specs for Hypothesis: every field of the language, alone and combined, in values and sizes that make sense."""

from dataclasses import replace

from hypothesis import strategies as st

from attngen.spec.expression import Expression
from attngen.spec.kind import causal_window, default_scale
from attngen.spec.model import (
    EXTERNAL,
    Blocks,
    BlockSelect,
    Compress,
    HeadDim,
    Heads,
    Indexer,
    IndexerScale,
    Kind,
    Latent,
    Select,
    Spec,
    Window,
)

MASKS = ("i - j < 8", "doc[i] == doc[j]", "h % 2 == 0 or abs(i - j) <= reach", "not (i < 3 and j > i // 2)")
SCORES = ("s + bias[h, i - j + 128]", "where(i > j, s, -inf)", "s * gain", "s if i == j else s - 0.5 * abs(i - j)")

counts = st.integers(1, 2**31 - 1)
bounds = st.one_of(st.none(), st.integers(0, 5000))
windows = st.builds(Window, bounds, bounds).filter(lambda window: window != Window(None, None))
indexers = st.builds(
    Indexer,
    heads=st.integers(1, 64),
    head_dim=st.just(128),
    scale=st.one_of(
        st.none(), st.builds(IndexerScale, st.sampled_from([64, 128]), st.sampled_from(["float32", "ue8m0"]))
    ),
    hadamard=st.booleans(),
) | st.builds(Indexer, heads=st.integers(1, 64), head_dim=st.integers(16, 256), dtype=st.just("bfloat16"))
block_selects = st.builds(
    BlockSelect,
    size=counts,
    top_k=st.integers(16, 2**31 - 1),
    first=st.integers(0, 8),
    last=st.integers(1, 8),
    per=st.sampled_from(["head", "kv_head"]),
)
selects = st.one_of(
    st.builds(
        Select,
        top_k=st.integers(16, 2**31 - 1),
        indexer=st.one_of(st.none(), indexers),
        first=st.integers(0, 8),
        last=st.integers(0, 8),
    ),
    st.builds(Select, blocks=block_selects),
)


def perhaps(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(st.none(), st.none(), values)


@st.composite
def kinds(draw: st.DrawFn, name: str) -> Kind:
    latent = draw(perhaps(st.builds(Latent, st.integers(16, 512), st.integers(0, 64))))
    kv, group = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    widths = HeadDim(draw(st.integers(16, 256)), draw(st.integers(16, 256)))
    head_dim = HeadDim(latent.rank + latent.rope, latent.rank) if latent else widths
    causal, window = draw(st.booleans()), draw(perhaps(windows))
    positive = st.floats(1e-6, 1e6, allow_nan=False)
    return Kind(
        name=name,
        heads=Heads(kv * group, 1 if latent else kv),
        head_dim=head_dim,
        dtype=draw(st.sampled_from(["bfloat16", "float16", "float32", "float8_e4m3"])),
        scale=draw(st.one_of(st.just(default_scale(head_dim.qk)), positive)),
        causal=causal,
        window=causal_window(window) if causal else window,
        chunk=draw(perhaps(counts)),
        dilation=draw(perhaps(st.integers(2, 9))),
        prefix=draw(perhaps(counts | st.just("argument"))),
        always_first=draw(perhaps(counts)),
        global_tokens=draw(perhaps(counts)),
        documents=draw(st.booleans()),
        blocks=draw(perhaps(st.builds(Blocks, counts))),
        mask=draw(perhaps(st.sampled_from(MASKS).map(lambda text: Expression.parse(text, "mask")))),
        select=draw(perhaps(selects)),
        latent=latent,
        softcap=draw(perhaps(positive)),
        alibi=draw(st.booleans()),
        score=draw(perhaps(st.sampled_from(SCORES).map(lambda text: Expression.parse(text, "score")))),
        sink=draw(st.booleans()),
    )


@st.composite
def branched(draw: st.DrawFn, name: str) -> Kind:
    """A kind of two or three branches, which share what the kind says and differ in what they see."""
    plain = {"window": None, "chunk": None, "select": None, "latent": None, "mask": None, "blocks": None}
    base = draw(kinds(name).filter(lambda kind: kind.latent is None))
    base = replace(base, **plain, dilation=None, prefix=None, always_first=None, global_tokens=None, documents=False)
    stride = draw(st.sampled_from([1, 8, 16]))
    compressed = replace(base, name="coarse", compress=Compress(stride * draw(st.integers(1, 4)), stride))
    blocks = replace(draw(block_selects), size=stride * draw(st.integers(1, 9)), by="coarse")
    selected = replace(base, name="chosen", select=Select(blocks=blocks), causal=draw(st.booleans()))
    near = replace(base, name="near", window=causal_window(Window(7, 0)), sink=draw(st.booleans()))
    return replace(base, branches=draw(st.sampled_from([(compressed, selected), (near, selected, compressed)])))


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    names = draw(
        st.lists(st.sampled_from(["local", "global", "attention", "null", "x_1"]), min_size=1, max_size=3, unique=True)
    )
    alike = draw(st.booleans())  # kinds that differ little are the common case, and the one with shared fields
    first = draw(kinds(names[0]))
    every = [first] + [
        Kind(**{**vars(first), "name": name, "window": None, "causal": False}) if alike else draw(kinds(name))
        for name in names[1:]
    ]
    if draw(st.booleans()):
        every[-1] = draw(branched(names[-1]))
    turn = draw(st.lists(st.sampled_from([*names, EXTERNAL]), min_size=1, max_size=6))
    layers = draw(st.integers(len(turn), 30))
    name = draw(st.sampled_from(["model", "1.5", "null", "true", "a-b_c.9", "007"]))
    return Spec(name, layers, tuple(every), tuple(turn[layer % len(turn)] for layer in range(layers)))
