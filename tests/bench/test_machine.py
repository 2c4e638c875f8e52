"""What a run was made on, by an nvidia-smi that stands in for the driver's."""

import sys
import time

import pytest

from attngen.bench.machine import ClockLog, clocks, hardware, limits
from attngen.target import get_target


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Make an nvidia-smi of the given Python lines, the only one on the path."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(*lines):
        path = tmp_path / "nvidia-smi"
        path.write_text("\n".join([f"#!{sys.executable}", "import sys, time", *lines]))
        path.chmod(0o755)

    return make


def test_clocks_are_what_the_driver_says(driver):
    driver("assert '--id=0' in sys.argv", "print('1755, 1980, 2619, 2619, 700.00, [N/A]')")
    assert clocks() == {
        "clocks.sm": 1755.0,
        "clocks.max.sm": 1980.0,
        "clocks.mem": 2619.0,
        "clocks.max.mem": 2619.0,
        "power.limit": 700.0,
    }


def test_no_driver_has_no_clocks(driver):
    assert clocks() is None
    driver("sys.exit(9)")
    assert clocks() is None
    driver("")
    assert clocks() is None


def test_the_log_hears_the_clock_while_it_is_open(driver):
    driver("while True:", "    print(' 1545')", "    time.sleep(0.01)")  # not flushed: a pipe would be silent
    start = time.monotonic()
    with ClockLog() as log:
        while log.median(start) is None and time.monotonic() < start + 20:
            time.sleep(0.01)
        assert log.median(start) == 1545.0
    time.sleep(0.1)
    assert log.median(time.monotonic() - 0.05) is None


def test_the_log_is_silent_without_a_driver(driver):
    with ClockLog() as log:
        assert log.median(0.0) is None
    log.note(1200.0)
    log.note(1400.0)
    assert log.median(0.0) == 1300.0 and log.median(time.monotonic() + 1) is None


def test_limits_are_the_target_s():
    found = limits(get_target("h100"))
    assert found["bf16_tflops"] == 798 and found["hbm_gbps"] == 3006 and "h100: measured" in found["source"]
    assert hardware(get_target("a100"))["sms"] == 108
