"""Patterns: every way to say which kind each layer is."""

import pytest

from attngen.spec import parse_spec

HEAD = "heads: 4\nhead_dim: 64\nkinds: {local: {window: {total: 4}}, global: {}}\n"


def layers(text: str) -> str:
    """The layers of a spec, one letter each: l, g and e."""
    return "".join(name[0] for name in parse_spec(HEAD + text).layer_kinds)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layers: 5\npattern: [local, global]", "lglgl"),
        ("layers: 4\npattern: [global, local, local, external]", "glle"),
        ("layers: 7\npattern: LLG", "llgllgl"),
        ("layers: 7\npattern: 'llg'", "llgllgl"),
        ("layers: 6\npattern: LL G", "llgllg"),
        ("layers: 4\npattern: LGE", "lgel"),
        ("layers: 3\npattern: global", "ggg"),
        ("layers: 5\nsymbols: {S: local, '.': global}\npattern: s.s", "lgllg"),
        ("layers: 8\npattern: {global: every 3, otherwise: local}", "gllgllgl"),
        ("layers: 12\npattern: {global: every 6 from 5, otherwise: local}", "lllllglllllg"),
        ("layers: 6\npattern: {global: every 2, local: every 2 from 1}", "glglgl"),
        ("layers: 6\npattern: {global: every 4 from 1, local: every 2, otherwise: external}", "lglelg"),
        ("pattern: [local, local, global]", "llg"),
        ("pattern: LLLG", "lllg"),
        ("pattern: {global: every 4 from 3, otherwise: local}", "lllg"),
    ],
)
def test_patterns(text, expected):
    assert layers(text) == expected


def test_one_kind_needs_no_pattern():
    assert parse_spec("heads: 4\nhead_dim: 64\nlayers: 3\nkinds: {only: }").layer_kinds == ("only",) * 3


def test_a_kind_may_be_named_like_a_word_of_python():
    assert parse_spec("heads: 4\nhead_dim: 64\nkinds: {global: , lambda: }\npattern: GL").layer_kinds == (
        "global",
        "lambda",
    )
