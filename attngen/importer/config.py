"""A Hugging Face config as it is read: typed fields, the family's defaults, and errors that point into the file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from attngen.errors import SpecError

MAX_SHOWN = 40
DTYPES = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class ConfigText:
    """The config's own fields, what transformers assumes where they are silent, and the text they came from."""

    values: Mapping[str, Any]
    defaults: Mapping[str, Any]
    source: str = "config"
    text: str = ""
    start: int = 0  # where in the text these fields begin: a text_config stands inside another config

    def with_defaults(self, defaults: Mapping[str, Any]) -> ConfigText:
        return replace(self, defaults=defaults)

    def inside(self, field: str) -> ConfigText | None:
        """The config held by ``field``, if it holds one."""
        inner = self.values.get(field)
        if not isinstance(inner, Mapping):
            return None
        match = re.search(rf'"{re.escape(field)}"\s*:', self.text)
        return replace(self, values=inner, start=match.end() if match else 0)

    def get(self, field: str) -> Any:
        return self.values[field] if field in self.values else self.defaults.get(field)

    def error(self, field: str, problem: str, remedy: str) -> SpecError:
        """The error about ``field``, at the line that gives it."""
        match = re.compile(rf'"{re.escape(field)}"\s*:').search(self.text, self.start)
        before = self.text[: match.start()] if match else ""
        return SpecError(self.source, before.count("\n") + 1, len(before) - before.rfind("\n"), problem, remedy)

    def wrong(self, field: str, right: str) -> SpecError:
        value = self.get(field)
        shown = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=repr)
        shown = shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 3] + "..."
        absent = field not in self.values and field not in self.defaults
        return self.error(field, f"{field} is {'missing' if absent else shown}", f"{right} would be right")

    def whole(self, field: str, high: int = 2**31 - 1) -> int:
        value = self.get(field)
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= high:
            return value
        raise self.wrong(field, f"a whole number from 1 to {high}")

    def positive(self, field: str) -> float:
        value = self.get(field)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf:
            return float(value)
        raise self.wrong(field, "a finite number above 0")

    def dtype(self) -> str | None:
        """The dtype the config names, under its new or its old name."""
        value = self.get("dtype") or self.get("torch_dtype")
        name = value.removeprefix("torch.") if isinstance(value, str) else None
        return name if name in DTYPES else None
