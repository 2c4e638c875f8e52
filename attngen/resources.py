"""Where files are: those that travel with the package, in a wheel or a source checkout, and the user's cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(name: Literal["templates", "tuning_db"]) -> Path:
    """The folder of templates or of shipped tunings.

    A wheel carries it under ``attngen/_data``, which is looked at first: site-packages may hold a
    stranger's ``templates`` beside us.
    """
    places = (_PACKAGE / "_data" / name, _PACKAGE.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"attngen's {name}/ is missing; looked in {places[0]} and {places[1]}")


def cache_dir() -> Path:
    """Where what can be made again is kept: ATTNGEN_CACHE, or the user's cache folder."""
    root = os.environ.get("ATTNGEN_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "attngen"
    )
    return Path(root)
