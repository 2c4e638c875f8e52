"""The attention that the tests of calls share; its database is empty."""

import pytest

import attngen
from attngen.spec import parse_spec
from tests.op.call_examples import SPEC


@pytest.fixture(scope="session")
def attn(tmp_path_factory):
    return attngen.load(parse_spec(SPEC), db=str(tmp_path_factory.mktemp("db") / "tunings.sqlite"))
