"""Durations, sizes and rates as a person writes them: `24h`, `50MiB`, `1/20m`.

Rule: pure; what cannot be read raises `BadText` with the form that is expected.
"""

import math
import re
from collections.abc import Mapping
from typing import Final

from control_plane.domain.errors import BadText
from control_plane.domain.jobs.spec import Rate

_SECONDS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_BYTES: Final[Mapping[str, int]] = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_DURATION: Final = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,6})?[smhdw])+", re.ASCII)
_STEP: Final = re.compile(r"([0-9.]+)([smhdw])", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,6})?) ?([A-Za-z]{1,3})?", re.ASCII)
_RATE: Final = re.compile(r"([0-9]{1,9})/([0-9]{0,9}[smhdw])", re.ASCII)
_MOST: Final = 2**53 - 1


def read_seconds(value: object) -> float:
    """Seconds in `24h`, `90s`, `1h30m`, or in a number of seconds; `BadText`.

    >>> read_seconds("24h"), read_seconds("1h30m"), read_seconds(90)
    (86400.0, 5400.0, 90.0)
    """
    if isinstance(value, str) and _DURATION.fullmatch(value):
        return sum(float(count) * _SECONDS[unit] for count, unit in _STEP.findall(value))
    if _is_number(value) and 0 <= value <= _MOST:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    message = "must be a duration such as 24h, 90s, 1h30m or 7d, or a number of seconds"
    raise BadText(message)


def read_bytes(value: object) -> int:
    """Bytes in `50MiB`, `1.5GiB`, `10MB`, or in a number of bytes; `BadText`.

    >>> read_bytes("50MiB"), read_bytes("10MB"), read_bytes(7)
    (52428800, 10000000, 7)
    """
    if isinstance(value, str) and (found := _SIZE.fullmatch(value)) and (found[2] or "B") in _BYTES:
        count = round(float(found[1]) * _BYTES[found[2] or "B"])
        if count <= _MOST:
            return count
    elif _is_number(value) and 0 <= value <= _MOST and value == int(value):  # type: ignore[operator, call-overload]
        return int(value)  # type: ignore[call-overload, no-any-return]
    message = "must be a size such as 50MiB, 2GiB or 10MB, or a whole number of bytes"
    raise BadText(message)


def read_rate(value: object) -> Rate:
    """A rate: `1/20m`, `50/h`, or a whole number a minute; `BadText`.

    >>> read_rate("1/20m"), read_rate("5/s"), read_rate(50)
    (Rate(count=1, seconds=1200.0), Rate(count=5, seconds=1.0), Rate(count=50, seconds=60.0))
    """
    if isinstance(value, str) and (found := _RATE.fullmatch(value)):
        count, each = int(found[1]), found[2]
        seconds = read_seconds(each if len(each) > 1 else f"1{each}")
        if count and seconds:
            return Rate(count, seconds)
    elif _is_number(value) and 0 < value <= _MOST and value == int(value):  # type: ignore[operator, call-overload]
        return Rate(int(value), 60.0)  # type: ignore[call-overload]
    message = "must be a rate such as 1/20m or 50/h, or a whole number a minute"
    raise BadText(message)


def show_seconds(seconds: float) -> str:
    """A duration that `read_seconds` reads, in the largest unit that divides it.

    >>> show_seconds(86400), show_seconds(5400), show_seconds(0.5)
    ('1d', '90m', '0.5s')
    """
    for unit in "wdhm":
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
