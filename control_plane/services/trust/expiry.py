"""What of the published keys needs a person soon: a key that expires, or one that the list does not have.

Rule: pure. An agent refuses a key that has expired, without a warning: only the control plane can warn in time.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from schemas.signing.trust import Trust

DAY: Final = 86_400.0
WARNED_BEFORE: Final = 90 * DAY
"""Seconds before the end of a key from which on it is warned of."""


class Expiry(StrEnum):
    """Whether a key ends: not within `WARNED_BEFORE`, within it, or it has ended."""

    FINE = "fine"
    SOON = "soon"
    EXPIRED = "expired"


def expiry_of(expires: datetime | None, now: float) -> Expiry:
    """That of something that ends at `expires`; None never ends. `now` in s since the epoch."""
    left = None if expires is None else expires.timestamp() - now
    if left is None or left > WARNED_BEFORE:
        return Expiry.FINE
    return Expiry.SOON if left > 0 else Expiry.EXPIRED


def warnings_of(trust: "Trust | None", now: float, own: str | None = None) -> list[str]:
    """A sentence for each thing, the most urgent first; none before keys are published.

    `own` is the name (kid) of the key with which this control plane signs, where it is known.
    """
    if trust is None or trust.keys is None:
        return []
    found: list[tuple[float, str]] = []
    if own is not None and trust.entry(own) is None:
        text = f"this control plane signs with {own}, which the list does not have: devices refuse its commands"
        found.append((0.0, text))
    ends = [(f"the key of {one.principal} ({kid})", one.expires) for kid, one in trust.by_kid.items()]
    ends += [("the list of keys", trust.keys.expires), ("the root of trust", trust.root.expires)]
    for what, expires in ends:
        if expires is not None and expiry_of(expires, now) is not Expiry.FINE:
            found.append((expires.timestamp(), f"{what} {_ends(expires, now)}"))
    return [text for _, text in sorted(found)]


def _ends(expires: datetime, now: float) -> str:
    days = int((expires.timestamp() - now) // DAY)
    day = f"{expires.astimezone(UTC):%Y-%m-%d}"
    if expiry_of(expires, now) is Expiry.EXPIRED:
        return f"expired on {day}: devices refuse it"
    return f"expires on {day}, in {days} day{'' if days == 1 else 's'}: devices refuse it then"
