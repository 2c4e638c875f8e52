"""How calls that are compared take turns."""

from collections import Counter
from itertools import pairwise

import pytest

from attngen.tuner.timing import ROUNDS, Timer, balanced_rounds


@pytest.mark.parametrize("count", range(1, 9))
def test_each_follows_every_other_as_often(count):
    orders = balanced_rounds(count)
    assert all(sorted(order) == list(range(count)) for order in orders)
    places = Counter(place for order in orders for place in enumerate(order))
    assert len(places) == count**2 and len(set(places.values())) == 1
    neighbours = Counter(pair for order in orders for pair in pairwise(order))
    assert len(neighbours) == count * (count - 1) and len(set(neighbours.values())) <= 1


def test_a_race_is_run_in_such_rounds():
    taken = []

    class Recorder(Timer):
        def __init__(self):
            pass

        def _sample(self, call, count):
            taken.append(call())
            return [float(call())] * count

    timings = Recorder().race([lambda: 10, lambda: 20, lambda: 30, lambda: 40])
    assert [timing.median_ms for timing in timings] == [10, 20, 30, 40]
    assert taken[:4] == [10, 20, 30, 40]  # to see how long they take
    rounds = [taken[n : n + 4] for n in range(4, len(taken), 4)]
    assert len(rounds) == 8 >= ROUNDS
    assert Counter(map(tuple, rounds)) == {tuple(10 * (n + 1) for n in order): 2 for order in balanced_rounds(4)}
