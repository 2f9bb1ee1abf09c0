"""Figures of the device: name, load, memory, disk, uptime, and its clock.

Rule: never raises and never guesses; a figure that this system does not provide is None.
"""

import os
import platform
import time
from typing import Final

from schemas.file_names import spelled
from schemas.values import SystemInfo

_MEMINFO: Final = "/proc/meminfo"
_KIB: Final = 1024


def boot_clock() -> float:
    """Seconds since the device started, those in suspend included; it never goes back (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def system_info(folder: str = "/") -> SystemInfo:
    """The present figures. The disk is the one that holds `folder`."""
    memory = _memory()
    total, free = _disk(folder)
    return SystemInfo(
        hostname=spelled(platform.node()),
        os=platform.system().lower(),
        arch=platform.machine(),
        uptime=_uptime(),
        load=_load(),
        memory_total=memory.get("MemTotal"),
        memory_available=memory.get("MemAvailable"),
        disk_total=total,
        disk_free=free,
    )


def _uptime() -> float | None:
    """Seconds since the device started, those in suspend included (clock_gettime(2), CLOCK_BOOTTIME)."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    try:
        return None if clock is None else round(time.clock_gettime(clock), 1)
    except OSError:
        return None


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _memory() -> dict[str, int]:
    """Bytes by the names of proc(5); empty where there is no such file."""
    try:
        with open(_MEMINFO, encoding="ascii", errors="replace") as lines:  # noqa: PTH123 (pathlib costs memory here)
            rows = [line.split() for line in lines]
    except OSError:
        return {}
    return {row[0].rstrip(":"): int(row[1]) * _KIB for row in rows if len(row) > 1 and row[1].isdigit()}


def _disk(folder: str) -> tuple[int | None, int | None]:
    try:
        disk = os.statvfs(folder)
    except (OSError, ValueError):
        return None, None
    return disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
