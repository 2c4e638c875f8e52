"""The table of GPUs is coherent, and devices are recognised."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

from attngen.errors import UsageError
from attngen.target import TARGETS, from_properties, get_target, nearest, slug


def properties(**changes):
    values = dict(
        name="NVIDIA H100 80GB HBM3",
        major=9,
        minor=0,
        multi_processor_count=132,
        max_threads_per_multi_processor=2048,
        shared_memory_per_block_optin=232448,
        shared_memory_per_multiprocessor=233472,
        regs_per_multiprocessor=65536,
        L2_cache_size=52428800,
        warp_size=32,
    )
    return SimpleNamespace(**{**values, **changes})


def recognise(name, **changes):
    return from_properties(name, properties(name=name, **changes))


def test_names_are_keys_and_file_names():
    assert set(TARGETS) == {"h100", "h200", "a100", "rtx4090", "b200", "mi300x"}
    for name, target in TARGETS.items():
        assert target.name == name == slug(name)
        assert target.shared_per_block <= target.shared_per_sm
        assert target.memory_bandwidth > 5e11 and target.peak_flops("bfloat16") > 1e14


@pytest.mark.parametrize(
    "device, sms, expected",
    [
        ("NVIDIA H100 80GB HBM3", 132, "h100"),
        ("NVIDIA H200", 132, "h200"),
        ("NVIDIA A100-SXM4-80GB", 108, "a100"),
        ("NVIDIA GeForce RTX 4090", 128, "rtx4090"),
        ("NVIDIA GeForce RTX 4090 D", 114, "rtx-4090-d"),
        ("NVIDIA B200", 148, "b200"),
        ("NVIDIA GH200 480GB", 132, "gh200-480gb"),
        ("NVIDIA H100 PCIe", 114, "h100-pcie"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 16, "h100-80gb-hbm3-mig-1g-10gb"),
    ],
)
def test_devices_are_recognised(device, sms, expected):
    assert recognise(device, multi_processor_count=sms).name == expected


def test_a_lesser_board_keeps_its_own_limits():
    board = recognise("NVIDIA H100 PCIe", multi_processor_count=66, memory_clock_rate=1_000_000, memory_bus_width=4096)
    assert board.sms == 66 and board.figures == "estimated"
    assert board.peak_flops("bfloat16") == pytest.approx(TARGETS["h100"].peak_flops("bfloat16") / 2)
    assert board.memory_bandwidth == pytest.approx(0.9 * 2 * 1e9 * 512)


def test_an_unknown_architecture_still_gets_a_target():
    old = recognise("Tesla T4", major=7, minor=5, multi_processor_count=40, shared_memory_per_block_optin=65536)
    assert (old.name, old.arch, old.shared_per_block) == ("t4", 75, 65536)
    with pytest.raises(UsageError, match="t4 has no matrix products in float8_e4m3"):
        old.peak_flops("float8_e4m3")
    amd = recognise("AMD Instinct MI210", major=9, minor=0, gcnArchName="gfx90a:sramecc+:xnack-", warp_size=64)
    assert (amd.name, amd.backend, amd.arch_name) == ("mi210", "hip", "gfx90a")


def test_nearest_gpu_order():
    assert nearest(TARGETS["h200"], TARGETS.values())[0].name == "h100"
    assert nearest(TARGETS["h100"], TARGETS.values())[0].name == "h200"
    assert nearest(TARGETS["mi300x"], TARGETS.values()) == []
    assert TARGETS["mi300x"] not in nearest(TARGETS["a100"], TARGETS.values())


def test_unknown_name_offers_the_nearest():
    with pytest.raises(UsageError, match="unknown target 'h10'; did you mean 'h100'"):
        get_target("h10")
    assert get_target("H100") is TARGETS["h100"]


def test_targets_travel_between_processes():
    for target in TARGETS.values():
        assert pickle.loads(pickle.dumps(target)) == target
