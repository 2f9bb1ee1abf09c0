"""The figures of the device, here and on a system without them."""

import os
import time
from pathlib import Path

import pytest

from device_agent import system_info as system_info_module
from device_agent.system_info import system_info


def test_this_machine() -> None:
    info = system_info()
    assert info.os == "linux"
    assert info.hostname == os.uname().nodename
    assert info.arch == os.uname().machine
    assert 0 < (info.memory_available or 0) < (info.memory_total or 0)
    assert 0 <= (info.disk_free or -1) < (info.disk_total or 0)
    assert info.load is not None


def test_uptime_includes_suspend() -> None:
    assert system_info().uptime == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=1.0)


def test_missing_figures_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> tuple[float, float, float]:
        raise OSError

    monkeypatch.setattr(system_info_module, "_MEMINFO", "/nonexistent")
    monkeypatch.setattr(os, "getloadavg", fail)
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    info = system_info("/nonexistent")
    figures = (info.memory_total, info.memory_available, info.disk_total, info.disk_free, info.load, info.uptime)
    assert figures == (None,) * 6


def test_a_malformed_meminfo_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_bytes(b"\xff\xfe\nMemTotal:\nMemAvailable: many kB\nOther: 5 kB\n")
    monkeypatch.setattr(system_info_module, "_MEMINFO", str(tmp_path / "meminfo"))
    assert system_info().memory_total is None
