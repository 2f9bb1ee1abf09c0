"""Figures of the device: name, load, memory, disk, uptime, its clock, and its time zone.

Rule: never raises and never guesses; a figure that this system does not provide is None.
"""

import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from typing import Final

from schemas.file_names import spelled
from schemas.values import SystemInfo

EARLIEST: Final = 1_735_689_600.0
"""2025-01-01 in seconds since 1970: an earlier clock was never set. A device without a battery begins in 1970."""

_MEMINFO: Final = "/proc/meminfo"
_KIB: Final = 1024
ZONE_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9+_-]*(/[A-Za-z0-9+_-]+){0,2}\Z"
_LONGEST_ZONE: Final = 64
_ZONES: Final = "/usr/share/zoneinfo"


def boot_clock() -> float:
    """Seconds since the device started, those in suspend included; it never goes back (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def is_zone(name: str) -> bool:
    """Whether this is the IANA name of a time zone. A system without a database of zones accepts every spelling."""
    spelled_well = re.match(ZONE_PATTERN, name) is not None and len(name) <= _LONGEST_ZONE
    return spelled_well and (os.path.isfile(f"{_ZONES}/{name}") or not os.path.isdir(_ZONES))  # noqa: PTH112, PTH113 (memory)


def system_timezone(environ: Mapping[str, str], etc: str = "/etc") -> str | None:
    """The time zone that this system is set to, by its IANA name; None where it has no such name."""
    return next(filter(is_zone, _named_zones(environ, etc)), None)


def _named_zones(environ: Mapping[str, str], etc: str) -> Iterator[str]:
    """The names in the order of tzset(3), then that of Debian; `TZ` may have a path or a rule in place of a name."""
    if zone := environ.get("TZ", "").removeprefix(":"):
        yield zone.rpartition("zoneinfo/")[2]
        return
    try:
        yield os.path.realpath(f"{etc}/localtime").rpartition("zoneinfo/")[2]
        with open(f"{etc}/timezone", encoding="ascii") as file:  # noqa: PTH123 (pathlib costs memory here)
            yield file.read(_LONGEST_ZONE).strip()
    except (OSError, ValueError):
        return


def system_info(folder: str = "/") -> SystemInfo:
    """The present figures. The disk is the one that holds `folder`."""
    memory = _memory()
    total, free = disk_space(folder)
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


def disk_space(folder: str) -> tuple[int | None, int | None]:
    """Bytes of the disk that holds `folder`: all, and those that are free for this user."""
    try:
        disk = os.statvfs(folder)
    except (OSError, ValueError):
        return None, None
    return disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
