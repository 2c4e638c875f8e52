"""The search proposes every feasible config at most once, and finds good ones early."""

from __future__ import annotations

import pytest
from fake_bench import PARAMETERS, cost, every_config

from attngen.config import Config
from attngen.tuner.search import Search

CONFIGS = every_config()


def evaluate(search, count, seed, pending=6):
    """The best of ``count`` proposals, with some under way at any time as in a real run."""
    waiting, found = [], []
    while len(found) < count:
        while len(waiting) < pending and len(found) + len(waiting) < count:
            waiting.append(search.ask())
        config = waiting.pop(0)
        search.tell(config, cost(config, seed))
        found.append(cost(config, seed))
    return min(found)


@pytest.mark.parametrize("seed", range(6))
def test_a_quarter_of_the_space_finds_the_best_within_three_per_cent(seed):
    best = min(cost(config, seed) for config in CONFIGS)
    search = Search(PARAMETERS, CONFIGS, seed)
    assert evaluate(search, len(CONFIGS) // 4, seed) <= 1.03 * best


def test_nothing_is_proposed_twice_and_everything_once():
    few = CONFIGS[:60]
    search = Search(PARAMETERS, few)
    search.seed([few[3], few[3], Config(BLOCK_M=7), few[5]])
    search.known(few[5], 1.0)
    search.known(few[6], None)
    seen = []
    while (config := search.ask()) is not None:
        seen.append(config)
        search.tell(config, None if len(seen) % 3 else cost(config))
    assert seen[0] == few[3]
    assert len(seen) == len(set(seen)) == 58 and set(seen) == set(few) - {few[5], few[6]}
    assert search.exhausted and search.size == 60


def test_the_same_seed_proposes_the_same():
    def proposals(seed):
        search = Search(PARAMETERS, CONFIGS, seed)
        out = []
        for _ in range(40):
            out.append(search.ask())
            search.tell(out[-1], cost(out[-1]))
        return out

    assert proposals(1) == proposals(1) != proposals(2)


def test_a_sweep_needs_no_answers():
    search = Search(PARAMETERS, CONFIGS, exhaustive=True)
    search.seed([CONFIGS[9]])
    seen = [search.ask() for _ in CONFIGS]
    assert seen[0] == CONFIGS[9] and set(seen) == set(CONFIGS) and search.ask() is None


def test_failures_steer_away():
    """Where one choice always fails, the search soon leaves it."""
    search = Search(PARAMETERS, CONFIGS, 3)
    asked = []
    for _ in range(120):
        config = search.ask()
        asked.append(config["num_warps"])
        search.tell(config, None if config["num_warps"] == 2 else cost(config))
    assert asked[60:].count(2) <= 12
