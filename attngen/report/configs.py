"""A config in a table's few words."""

from __future__ import annotations

from attngen.config import Config, Value

_FIRST = ("schedule", "BLOCK_M", "BLOCK_N")
_ALWAYS = ("num_warps", "num_stages")


def brief(config: Config) -> str:
    """``portable 64x128 num_warps=4 num_stages=2 descriptor SPLIT_MASKS``: what is off or neutral is left out."""
    tiled = "BLOCK_M" in config and "BLOCK_N" in config
    tile = f" {config['BLOCK_M']}x{config['BLOCK_N']}" if tiled else ""
    head = f"{config.get('schedule', '?')}{tile}"
    first = _FIRST if tiled else ("schedule",)
    names = sorted((name for name in config if name not in first), key=lambda name: (name not in _ALWAYS, name))
    return " ".join([head, *filter(None, (_word(name, config[name]) for name in names))])


def _word(name: str, value: Value) -> str:
    if isinstance(value, bool):
        return name if value else ""
    if isinstance(value, str):
        return value
    return "" if value is None or (value == 1 and name not in _ALWAYS) else f"{name}={value}"


def titled(kind: str, kernel: str) -> str:
    """A kind, and which of its kernels where it has several."""
    return kind if kernel == "forward" else f"{kind} {kernel}"
