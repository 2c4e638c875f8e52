"""Where the files that travel with the package are: in a wheel, or beside it in a source checkout."""

from __future__ import annotations

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
