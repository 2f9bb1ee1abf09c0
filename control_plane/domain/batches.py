"""A batch: many devices of one image, which all show the same token and get their names one after the other.

Rule: a token is worth at most `count` devices until `expires_at`; only its digest is kept. A slot belongs to the first
key that took it once its device has joined: no second key gets its name by the token then.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.domain.errors import BadText
from schemas.errors import SchemaError
from schemas.signing.enrolment import SERIAL_PATTERN
from schemas.topics import require_client_id

MAX_COUNT: Final = 10_000
"""Devices of one batch."""

MAX_LIFE: Final = 400 * 86_400.0
"""Seconds for which a batch can be used, at most."""

_NAME: Final = re.compile(SERIAL_PATTERN)
_PLACE: Final = re.compile(r"\{(n(?::0([1-9]))?|serial)\}")


@dataclass(frozen=True, slots=True)
class Batch:
    """Who may join with one token. Instants are s since the epoch; `digest` is the SHA-256 of the token (hex).

    `serials` empty: any device may join. `wanted` has the settings of the bundles, by name. `auto`: no person approves.
    """

    batch_id: str
    digest: str
    pattern: str
    count: int
    expires_at: float
    auto: bool
    created_at: float
    created_by: str
    serials: tuple[str, ...] = ()
    wanted: Mapping[str, object] | None = None
    revoked_at: float | None = None

    def __repr__(self) -> str:
        return f"Batch({self.batch_id!r})"

    def usable(self, now: float) -> bool:
        """Whether a device may still join with its token."""
        return self.revoked_at is None and now < self.expires_at

    def name(self, number: int) -> str:
        """The name of the device with this number, from 1."""
        serial = self.serials[number - 1] if self.serials else ""
        return name_of(self.pattern, number, serial)

    def number_of(self, serial: str | None) -> int | None:
        """The number of a serial in the list; None for one that is not listed."""
        return self.serials.index(serial) + 1 if serial in self.serials else None


@dataclass(frozen=True, slots=True)
class Slot:
    """A name of a batch, and the key that took it (32 bytes)."""

    batch_id: str
    number: int
    client_id: str
    public_key: bytes
    at: float


def name_of(pattern: str, number: int, serial: str = "") -> str:
    """The name that a pattern gives; `BadText` unless it has one place and makes a name of a client.

    >>> name_of("till-{n:03}", 7), name_of("till-{serial}", 1, "A77")
    ('till-007', 'till-A77')
    """
    places = _PLACE.findall(pattern)
    name = _PLACE.sub(lambda found: _put(found, number, serial), pattern)
    if len(places) != 1 or not _NAME.match(name):
        text = f"{pattern!r} makes no names: write one of {{n}}, {{n:03}} and {{serial}}, as in till-{{n:03}}"
        raise BadText(text)
    return name


def check_names(pattern: str, count: int, serials: Sequence[str]) -> None:
    """`BadText` unless every device of a batch gets a name, each another one."""
    if len(set(serials)) != len(serials) or any(not _NAME.match(serial) for serial in serials):
        text = "a serial has at most 64 letters, digits, dots, dashes and underscores, and is listed once"
        raise BadText(text)
    if serials and count != len(serials):
        text = f"the list has {len(serials)} serials, and the count is {count}"
        raise BadText(text)
    if "{serial}" in pattern and not serials:
        text = "a name by {serial} needs the list of serials: else whoever has the token chooses his name"
        raise BadText(text)
    for number in range(1, count + 1):
        name = name_of(pattern, number, serials[number - 1] if serials else "")
        try:
            require_client_id(name)
        except SchemaError as error:
            raise BadText(str(error)) from error


def _put(found: re.Match[str], number: int, serial: str) -> str:
    if found[1] == "serial":
        return serial
    return str(number).zfill(int(found[2] or 1))
