"""What a search knows before it begins: earlier results, and configs that others recommend."""

from __future__ import annotations

from itertools import islice

from attngen.config import Config
from attngen.database import Database
from attngen.database.ranking import best_first
from attngen.tuner.journal import Journal
from attngen.tuner.search import Search
from attngen.tuner.task import Task

SEEDS = 8  # from each source


def prepare_search(search: Search, task: Task, journal: Journal, db: Database) -> None:
    """Tell the search what is settled, and queue: the default, the best of other versions of this problem, of the
    nearest problems and GPUs, and the cost model's favourites."""
    for config, trial in journal.earlier.items():
        search.known(config, trial.median_ms if trial.status == "ok" else None)
    choices = db.lookup_all(task.problem, task.target, template=task.template, triton=task.versions.triton)
    search.seed([task.default])
    search.seed([trial.config for trial in best_first(journal.history)[:SEEDS]])
    search.seed([choice.config for choice in islice(choices, SEEDS)])
    search.seed(promising(task))


def promising(task: Task) -> list[Config]:
    """The cost model's favourites, each of another tile shape; the best of every schedule first."""
    shapes: dict[tuple, Config] = {}
    for config in sorted(task.configs, key=lambda config: task.estimate(config, None)):
        shapes.setdefault(tuple(config.get(name) for name in ("schedule", "BLOCK_M", "BLOCK_N")), config)
    firsts: dict[object, Config] = {}
    for config in shapes.values():
        firsts.setdefault(config.get("schedule"), config)
    return list(islice(dict.fromkeys([*firsts.values(), *shapes.values()]), SEEDS))
