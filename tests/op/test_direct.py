"""A compiled kernel is launched with what Triton's own front end gives it, and only by a Triton that is known."""

from types import SimpleNamespace

import pytest
import triton

from attngen.op import direct

GRID = 7
META = {"swizzle": 3, "elem_size": 2, "elem_type": 10, "block_size": [1, 64]}
DESCRIPTOR = SimpleNamespace(shape=[5, 64], strides=[64, 1])


def runner(launcher):
    """As triton.backends.nvidia.driver has it: a function within which the compiled launcher is."""

    def inner(*arguments):
        raise AssertionError("descriptors are encoded once more")
        return launcher

    return SimpleNamespace(
        launch=inner, launch_cooperative_grid=False, launch_pdl=True, global_scratch_size=0, profile_scratch_size=0
    )


@pytest.fixture
def compiled(monkeypatch):
    """A kernel of one descriptor that keeps what it is launched with."""
    monkeypatch.setattr(triton, "__version__", "3.6.0")
    monkeypatch.delenv("ATTNGEN_SAFE_LAUNCH", raising=False)
    calls = []
    metadata = SimpleNamespace(target=SimpleNamespace(backend="cuda"), tensordesc_meta=[META])
    launcher = lambda *arguments: calls.append(arguments)  # noqa: E731
    return SimpleNamespace(run=runner(launcher), function="f", packed_metadata="m", metadata=metadata, calls=calls)


@pytest.fixture
def encoded(monkeypatch):
    """Addresses of which a descriptor was encoded."""
    addresses = []

    def fill(address, swizzle, size, element, block, shape, strides, padding):
        addresses.append(address)
        return (address, swizzle, size, element, block, shape, strides, padding)

    driver = SimpleNamespace(active=SimpleNamespace(utils=SimpleNamespace(fill_tma_descriptor=fill)))
    monkeypatch.setattr(triton.runtime, "driver", driver)
    return addresses


def test_a_launch_passes_what_tritons_runner_passes(compiled, encoded):
    """Grid, stream, kernel, how it is launched, no memory, metadata, no hooks; then a descriptor with its sizes."""
    launch = direct.direct_launch(compiled, GRID, [DESCRIPTOR, None, 3], descriptors=[0])
    for address in (4096, 4096, 8192):
        arguments = launch.arguments()
        arguments[launch.places[0]] = launch.maps[0][address]
        arguments[launch.places[1]] = 17
        launch(99, arguments)
    head = (GRID, 1, 1, 99, "f", False, True, None, None, "m", None, None, None)
    first, second, third = compiled.calls
    assert first == second == (*head, (4096, 3, 2, 9, [1, 64], [5, 64], [64, 1], 0), 5, 64, 64, 1, 17, 3)
    assert third[13][0] == 8192
    assert encoded == [4096, 8192]  # each once


def test_addresses_are_forgotten_when_there_are_many(compiled, encoded, monkeypatch):
    monkeypatch.setattr(direct, "MOST_MAPS", 3)
    maps = direct.direct_launch(compiled, GRID, [DESCRIPTOR], descriptors=[0]).maps[0]
    for address in (1, 2, 3, 4, 1):
        assert maps[address][0] == address
    assert len(maps) <= 3 and encoded == [1, 2, 3, 4, 1]


def test_other_backends_are_run_as_triton_runs_them(compiled):
    compiled.metadata.target.backend = "hip"
    compiled.run = lambda *arguments: compiled.calls.append(arguments)
    launch = direct.direct_launch(compiled, GRID, [None, 3])
    launch(99, [17, 3])
    assert compiled.calls == [(GRID, 1, 1, 99, "f", "m", None, None, None, 17, 3)]


@pytest.mark.parametrize(("version", "safe", "made"), [("3.7.0", "", True), ("3.6.0", "1", True), ("3.6.0", "", False)])
def test_there_is_none_where_it_could_go_wrong(compiled, monkeypatch, version, safe, made):
    monkeypatch.setattr(triton, "__version__", version)
    monkeypatch.setenv("ATTNGEN_SAFE_LAUNCH", safe)
    assert direct.direct_launch(compiled if made else None, GRID, []) is None


def test_there_is_none_where_descriptors_or_the_launcher_are_unknown(compiled, encoded):
    assert direct.direct_launch(compiled, GRID, [DESCRIPTOR], descriptors=[0]) is not None
    compiled.metadata.tensordesc_meta = None
    assert direct.direct_launch(compiled, GRID, [DESCRIPTOR], descriptors=[0]) is None
    compiled.run.launch = lambda: None  # a function, with no launcher in it
    assert direct.direct_launch(compiled, GRID, [None]) is None


def test_there_is_none_where_a_kernel_wants_memory(compiled):
    compiled.run.global_scratch_size = 128
    assert direct.direct_launch(compiled, GRID, []) is None
