"""A process beside the tests in which Triton interprets: that is chosen once, before Triton is imported."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from tests.op.cases import Case, Outcome, begin_interpreting, run


@pytest.fixture(scope="session")
def interpret(interpreter: Callable[..., Any]) -> Callable[[Case], Outcome]:
    """Runs a case in the interpreter."""
    return lambda case: interpreter(run, case)


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Calls a function in the interpreter. One process a pytest worker, started for the first call."""
    chosen = {
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "ATTNGEN_CACHE": str(tmp_path_factory.mktemp("generated")),
    }
    before = {name: os.environ.get(name) for name in chosen}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=begin_interpreting) as pool:
        os.environ.update(chosen)
        try:
            pool.submit(os.getpid).result()  # starts the process, with this environment
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        yield lambda function, *arguments, **keywords: pool.submit(function, *arguments, **keywords).result(timeout=120)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``gpu`` are skipped where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no GPU")
