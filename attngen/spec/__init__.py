"""The language: YAML text to a Spec and back."""

from attngen.spec.expression import Expression
from attngen.spec.model import EXTERNAL, Kind, Spec
from attngen.spec.parse import load_spec, parse_spec
from attngen.spec.write import dump_spec

__all__ = ["EXTERNAL", "Expression", "Kind", "Spec", "dump_spec", "load_spec", "parse_spec"]
