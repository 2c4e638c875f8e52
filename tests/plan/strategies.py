"""Random kinds and sizes small enough that a mask can be written out whole."""

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from attngen.spec.expression import Expression
from attngen.spec.kind import causal_window
from attngen.spec.model import HeadDim, Heads, Kind, Window

small = st.integers(0, 40)
counts = st.integers(1, 40)
slopes = st.sampled_from([1, 1, 1, 2, 3, -1])


def perhaps(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(st.none(), st.none(), values)


@st.composite
def linear(draw: st.DrawFn) -> str:
    """A comparison whose sides are linear in i and j, written in one of many ways."""
    op = draw(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
    a, b, c, d = draw(slopes), draw(small), draw(small), draw(st.integers(0, 2))
    return draw(
        st.sampled_from(
            [
                f"j {op} i - {b}",
                f"j {op} {a} * i + {b}",
                f"i - j {op} {b}",
                f"{b} {op} j",
                f"i - {b} <= j {op} i + {c}",
                f"{a} * (i - {b}) {op} j - {c}",
                f"-j {op} i - {b}",
                f"{d} * j {op} i - {b}",
                f"i + j {op} {b}",
                f"abs(i - j) {op} {b}",
                f"{b} {op} abs(2 * i - j)",
                f"i {op} {b}",
            ]
        )
    )


elementwise = st.sampled_from(
    [
        "abs(i - j) <= 5",
        "h % 2 == 0",
        "b == 0",
        "doc[i] == doc[j]",
        "table[b, i - j + 3] > 1",
        "(i - j) % 3 == 0",
        "i // 4 == j // 4",
        "j <= reach",
        "j * 1.5 < i",
        "i * j < 90",
        "min(i, j) < 7",
        "True",
        "False",
    ]
)
conditions = st.recursive(
    linear() | linear() | elementwise,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
        inner.map(lambda text: f"not ({text})"),
    ),
    max_leaves=5,
)


def interval(moving: bool, first: int, width: int) -> str:
    start = "i - 20 + " if moving else ""
    return f"{start}{first} <= j < {start}{first + width}"


intervals = st.builds(interval, st.booleans(), small, counts)
unions = st.lists(intervals, min_size=2, max_size=4).map(" or ".join)
masks = (conditions | conditions | unions).map(lambda text: Expression.parse(text, "mask"))
windows = st.builds(Window, perhaps(small), perhaps(small)).filter(lambda window: window != Window(None, None))


FIELDS = {
    "causal": st.just(True),
    "window": windows,
    "chunk": counts,
    "dilation": st.integers(2, 5),
    "prefix": counts | st.just("argument"),
    "always_first": counts,
    "global_tokens": counts,
}


@st.composite
def masked_kinds(draw: st.DrawFn, mask: st.SearchStrategy = masks) -> Kind:
    """A kind that says a few things about which keys are seen, or nothing at all: more would see every key."""
    names = draw(st.lists(st.sampled_from([*FIELDS, "mask", "mask", "mask"]), max_size=4, unique=True))
    values = {name: draw(FIELDS[name]) for name in names if name != "mask"}
    if "causal" in values and "window" in values:
        values["window"] = causal_window(values["window"])
    return Kind(
        name="kind",
        heads=Heads(4, 2),
        head_dim=HeadDim(16, 16),
        mask=draw(mask) if "mask" in names else None,
        **values,
    )


def larger_scores(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Each construct of the language over smaller expressions."""
    one = st.sampled_from(
        ["exp({})", "log({})", "sqrt({})", "tanh({})", "sigmoid({})", "abs({})", "-({})", "max({}, 0)", "min(0.5, {})",
         "floor({})", "({}) ** 3", "({}) ** -2", "({}) / 3", "({}) * 0.1", "where(i > j, {}, -inf)", "w[floor({}), 1]"]
    )  # fmt: skip
    two = st.sampled_from(
        ["({}) + ({})", "({}) - ({})", "({}) * ({})", "({}) * ({})", "({}) / ({})",
         "({}) // (({}) - 0.3)", "({}) % (({}) - 0.3)", "min({}, {})", "max({}, {})", "max({}, i, {}, 0.25)",
         "where(s > 0.5, {}, {})", "({}) if not (h == 0 or s <= gain) else ({})"]
    )  # fmt: skip
    return st.one_of(
        st.builds(str.format, one, inner),
        st.builds(str.format, two, inner, inner),
        st.builds(lambda text, same: text.format(same, same), two, inner),
    )


elements = ["s", "s", "s", "gain", "bias[h, i - j + 2]", "bias[h, i - j + 2]", "w[i, h]", "w[j, 1]", "i", "2", "0.5"]
scores = st.recursive(st.sampled_from(elements), larger_scores, max_leaves=7).map(
    lambda text: Expression.parse(text, "score")
)


@dataclass(frozen=True)
class Sizes:
    """Lengths of one call, one head of one sequence of it, and how a kernel tiles them."""

    seq_q: int
    seq_k: int
    offset: int
    key_first: int
    key_end: int
    prefix: int
    head: int
    batch: int
    block_q: int
    block_n: int
    split_masks: bool

    @property
    def keywords(self) -> dict[str, Any]:
        """Keywords of the reference, two sequences long; the other sequence is of no account."""

        def pair(value: Any) -> torch.Tensor:
            return torch.tensor([value, value], dtype=torch.int32)

        return {
            "offsets": pair(self.offset),
            "key_range": pair((self.key_first, self.key_end)),
            "prefix": pair(self.prefix),
        }


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    seq_q, seq_k = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    whole = draw(st.booleans())  # the defaults of a call
    return Sizes(
        seq_q=seq_q,
        seq_k=seq_k,
        offset=seq_k - seq_q if whole else draw(st.integers(-70, 70)),
        key_first=0 if whole else draw(st.integers(0, seq_k)),
        key_end=seq_k if whole else draw(st.integers(0, seq_k)),
        prefix=draw(st.integers(0, seq_k)),
        head=draw(st.integers(0, 3)),
        batch=draw(st.integers(0, 1)),
        block_q=draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64])),
        block_n=draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64])),
        split_masks=draw(st.sampled_from([True, True, False])),
    )


def arguments_of_masks() -> dict[str, Any]:
    """What the mask expressions above leave to run time."""
    generator = torch.Generator().manual_seed(0)
    return {
        "doc": torch.randint(0, 3, (50,), generator=generator),
        "table": torch.randint(0, 4, (2, 30), generator=generator),
        "reach": 17.5,
    }
