"""The figures of the device, here and on a system without them."""

import os
import time
from pathlib import Path

import pytest

from device_agent import system_info as system_info_module
from device_agent.system_info import is_zone, system_info, system_timezone


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


@pytest.mark.parametrize(
    ("environ", "zone"),
    [
        ({"TZ": "Europe/Berlin"}, "Europe/Berlin"),
        ({"TZ": ":America/Argentina/Salta"}, "America/Argentina/Salta"),
        ({"TZ": "/usr/share/zoneinfo/Asia/Tokyo"}, "Asia/Tokyo"),
        ({"TZ": "CET-1CEST,M3.5.0,M10.5.0/3"}, None),
        ({"TZ": "Mars/Olympus"}, None),
        ({}, "Europe/Paris"),
    ],
)
def test_the_time_zone_of_the_system(tmp_path: Path, environ: dict[str, str], zone: str | None) -> None:
    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/Europe/Paris")
    assert system_timezone(environ, str(tmp_path)) == zone


def test_the_time_zone_of_a_system_whose_localtime_is_a_copy(tmp_path: Path) -> None:
    (tmp_path / "localtime").write_bytes(b"TZif2")
    assert system_timezone({}, str(tmp_path)) is None
    (tmp_path / "timezone").write_text("Europe/Rome\n")
    assert system_timezone({}, str(tmp_path)) == "Europe/Rome"


def test_without_a_database_of_zones_the_spelling_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_info_module, "_ZONES", "/nonexistent")
    assert [is_zone(name) for name in ("Mars/Olympus", "UTC", "no zone", "../x", "A" * 65)] == [True, True] + [
        False
    ] * 3
