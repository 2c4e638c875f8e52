"""Whatever a spec file holds, reading it ends in a Spec that can be written, or in one line of error."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attngen.errors import SpecError
from attngen.spec import dump_spec, parse_spec

EXAMPLES = [path.read_text() for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))]
PIECES = [
    "heads", "kinds:", "window: {", "{}", "}", "[", "]", ": ", "\n", "\n  ", "-1", "0", "1__0", "1e9", ".5", "null",
    "~", "true", "'", '"', "|\n", ">\n", "&a ", "*a", "!!int ", "? ", "- ", "#", "%", "\t", "\x85", "\u2028", "\ufeff",
    "é", "every 0", "every 3 from 9", "global", "local", "external", "LG", "s + t[i]", "i < j", "None", "lambda: 0",
    "\\",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(EXAMPLES))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(st.sampled_from(PIECES) | st.text(max_size=4)) + text[stop:]
    return text


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged() | st.text(max_size=40))
def test_reading_ends_in_a_spec_or_in_one_line(text):
    try:
        spec = parse_spec(text, "spec.yaml")
    except SpecError as error:
        message = str(error)
        assert message.startswith("spec.yaml:")
        assert message.isprintable()
        assert "; " in message
        assert error.line >= 1
        assert error.column >= 1
    else:
        assert parse_spec(dump_spec(spec)) == spec
