"""Which config to try next: Optuna proposes, its answers are kept to feasible configs that nobody tried."""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

import optuna

from attngen.config import Config, Value

STARTUP = 12  # spread over the space before the sampler has something to go by
WORKS = "works"  # the constraint that failures violate
SAMPLED_EVERY = 3  # of so many proposals one is the sampler's; the others step from the best found so far


class Parameter(Protocol):
    """One dimension of the space."""

    @property
    def name(self) -> str: ...
    @property
    def choices(self) -> Sequence[Value]: ...


class Search:
    """Proposes each feasible config at most once.

    ``configs`` are all the points worth compiling, a subset of the product of ``parameters``. Seeds come first, then
    a few points far from each other; after that two proposals of three change one parameter of the best so far, which
    on made-up landscapes finds more than the sampler alone, and the third is Optuna's. Every answer is told to
    Optuna, failures as violated constraints.
    """

    def __init__(
        self, parameters: Sequence[Parameter], configs: Iterable[Config], seed: int = 0, *, exhaustive: bool = False
    ) -> None:
        self._exhaustive = exhaustive  # everything is wanted, so nothing is learned: seeds, then a random order
        self._choices: dict[str, tuple[Value, ...]] = {p.name: tuple(p.choices) for p in parameters}
        self._untried: dict[tuple[int, ...], Config] = {self._point(config): config for config in configs}
        self.size = len(self._untried)
        self._seeds: deque[Config] = deque()
        self._running: dict[Config, optuna.Trial] = {}
        self._tried: list[tuple[int, ...]] = []
        self._best: tuple[float, Config] | None = None
        self._asked = 0
        self._random = random.Random(seed)
        self._distributions = {
            name: optuna.distributions.CategoricalDistribution(choices) for name, choices in self._choices.items()
        }
        optuna.logging.set_verbosity(logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        self._study = optuna.create_study(sampler=sampler)

    @property
    def exhausted(self) -> bool:
        """Whether every feasible config has been proposed or was known."""
        return not self._untried

    def seed(self, configs: Iterable[Config]) -> None:
        """Propose these first, in this order; those that are not feasible here are forgotten."""
        self._seeds.extend(configs)

    def known(self, config: Config, value: float | None) -> None:
        """An earlier result: never proposed again, and guides what is. None is a failure."""
        if not self._take(config):
            return
        self._keep_best(config, value)
        self._study.add_trial(
            optuna.trial.create_trial(
                params={name: config.get(name) for name in self._choices},
                distributions=self._distributions,
                value=math.inf if value is None else math.log(value),
                constraints={WORKS: 1.0 if value is None else -1.0},
            )
        )

    def ask(self) -> Config | None:
        """The next config, or None when nothing is left."""
        if not self._untried:
            return None
        config = self._propose()
        self._take(config)
        self._asked += 1
        if not self._exhaustive:
            self._running[config] = self._start(config)
        return config

    def tell(self, config: Config, value: float | None) -> None:
        """The time of a config that was asked for; None where it has none."""
        self._keep_best(config, value)
        if self._exhaustive:
            return
        trial = self._running.pop(config)
        trial.set_constraint(WORKS, 1.0 if value is None else -1.0)
        self._study.tell(trial, math.inf if value is None else math.log(value))

    def _keep_best(self, config: Config, value: float | None) -> None:
        if value is not None and (self._best is None or value < self._best[0]):
            self._best = (value, config)

    # Proposing

    def _propose(self) -> Config:
        while self._seeds:
            seed = self._seeds.popleft()
            if self._is_untried(seed):
                return seed
        if self._exhaustive:
            return self._untried[self._random.choice(list(self._untried))]
        if len(self._tried) < STARTUP:
            return self._farthest()
        if self._best is not None and self._asked % SAMPLED_EVERY:
            step = self._step_from(self._best[1])
            if step is not None:
                return step
        return self._sampled()

    def _farthest(self) -> Config:
        """Of a few random points, the one least like everything tried."""
        points = self._random.sample(sorted(self._untried), k=min(16, len(self._untried)))
        return self._untried[max(points, key=lambda p: min((self._distance(p, q) for q in self._tried), default=0.0))]

    def _step_from(self, config: Config) -> Config | None:
        """An untried config that differs in one parameter, to an adjacent choice where there is one."""
        here = self._point(config)
        near = [point for point in self._untried if sum(a != b for a, b in zip(point, here, strict=True)) == 1]
        if not near:
            return None
        closest = min(self._distance(point, here) for point in near)
        return self._untried[self._random.choice(sorted(p for p in near if self._distance(p, here) <= closest))]

    def _sampled(self) -> Config:
        """The sampler's proposal, moved to the nearest untried config."""
        trial = self._study.ask(self._distributions)
        point = tuple(self._choices[name].index(value) for name, value in trial.params.items())
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        nearest = min(sorted(self._untried), key=lambda p: self._distance(p, point))
        return self._untried[nearest]

    # Bookkeeping

    def _start(self, config: Config) -> optuna.Trial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.enqueue_trial({name: config.get(name) for name in self._choices})
        return self._study.ask(self._distributions)

    def _take(self, config: Config) -> bool:
        if not self._is_untried(config):
            return False
        point = self._point(config)
        del self._untried[point]
        self._tried.append(point)
        return True

    def _is_untried(self, config: Config) -> bool:
        try:
            return self._untried.get(self._point(config)) == config
        except ValueError:  # a choice that this space does not offer
            return False

    def _point(self, config: Config) -> tuple[int, ...]:
        return tuple(choices.index(config.get(name)) for name, choices in self._choices.items())

    def _distance(self, a: tuple[int, ...], b: tuple[int, ...]) -> float:
        """Parameters that differ, and a little for how far apart ordered choices are."""
        total = 0.0
        for x, y, choices in zip(a, b, self._choices.values(), strict=True):
            if x != y:
                total += 1.0 + 0.5 * abs(x - y) / len(choices)
        return total
