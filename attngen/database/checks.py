"""What a config or a name from outside may be: plain words and numbers, nothing that could reach code as code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attngen.config import Value

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
TARGET = re.compile(r"[a-z0-9][a-z0-9\-]{0,79}")
DIGEST = re.compile(r"[0-9a-f]{4,40}")
MOST_VALUES = 64
LARGEST = 2**31 - 1


def checked_config(values: Any) -> dict[str, Value]:
    """The same mapping, or a ValueError that says which value cannot be part of a config."""
    if not isinstance(values, Mapping):
        raise ValueError(f"a config must be a mapping of names to values, not {values!r}")
    if len(values) > MOST_VALUES:
        raise ValueError(f"a config has {len(values)} values; at most {MOST_VALUES} are allowed")
    for name, value in values.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"config name {name!r} is not a plain identifier")
        if value is None or isinstance(value, bool):
            continue
        if isinstance(value, int) and abs(value) <= LARGEST:
            continue
        if isinstance(value, str) and WORD.fullmatch(value):
            continue
        raise ValueError(f"config value {name}={value!r} must be an int of 32 bits, a plain word, a bool or null")
    return dict(values)
