"""A config: one point of a kernel's search space, as an immutable mapping of plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

Value = int | str | bool | None


class Config(Mapping[str, Value]):
    """Tunables of one kernel, ordered by name: ``Config(schedule="portable", BLOCK_M=128, num_warps=8)``.

    Hashable and never mutated; ``replace`` gives a changed copy. Values are ints, strings, bools or None,
    so that a config can be read in a text file and never runs anything.
    """

    __slots__ = ("_items",)
    _items: dict[str, Value]

    def __init__(self, **values: Value) -> None:
        for name, value in values.items():
            if value is not None and not isinstance(value, (int, str, bool)):
                raise TypeError(f"config value {name}={value!r} must be an int, a string, a bool or None")
        object.__setattr__(self, "_items", dict(sorted(values.items())))

    @classmethod
    def from_dict(cls, values: Mapping[str, Value]) -> Config:
        return cls(**values)

    def as_dict(self) -> dict[str, Value]:
        return dict(self._items)

    def replace(self, **values: Value) -> Config:
        return Config(**{**self._items, **values})

    def label(self) -> str:
        """Short text for tables: the schedule, then ``name=value`` for everything else."""
        rest = " ".join(f"{name}={value}" for name, value in self._items.items() if name != "schedule")
        return f"{self._items.get('schedule', '?')} {rest}".strip()

    def __getitem__(self, name: str) -> Value:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self._items == other._items

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Config is immutable; use replace()")

    def __reduce__(self):
        return (Config.from_dict, (self._items,))

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in self._items.items())})"
