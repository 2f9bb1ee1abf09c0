"""What a device shows of its battery and its processors, for the conditions of its uploads.

Rule: never raises; what this system does not show is None, and holds no upload.
"""

import os
from collections.abc import Iterator
from typing import Final

POWER_SUPPLY: Final = "/sys/class/power_supply"
_FULL_ENOUGH: Final = frozenset({"Charging", "Full"})
_LONGEST: Final = 64


def load_per_processor() -> float | None:
    """The load average over one minute, divided by the number of processors."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None


def battery_percent(folder: str = POWER_SUPPLY) -> int | None:
    """The lowest charge of the batteries that feed this device and are not charged now; None without one.

    A battery with the scope `Device` feeds a mouse, or its like.
    """
    return min(_discharging(folder), default=None)


def _discharging(folder: str) -> Iterator[int]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 (pathlib costs memory here)
    except OSError:
        return
    for name in names:
        supply = f"{folder}/{name}"
        if _read(f"{supply}/type") != "Battery" or _read(f"{supply}/scope") == "Device":
            continue
        charge = _read(f"{supply}/capacity")
        if charge.isdigit() and _read(f"{supply}/status") not in _FULL_ENOUGH:
            yield int(charge)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 (pathlib costs memory here)
            return file.read(_LONGEST).strip()
    except OSError:
        return ""
