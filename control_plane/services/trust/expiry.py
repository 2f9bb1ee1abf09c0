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
"""Seconds before the end of a key, or of a list that lives long, from which on it is warned of."""
_PART: Final = 1 / 3
"""The last part of the life of a list, in which it is warned of if that is shorter."""


class Expiry(StrEnum):
    """Whether a key or a list ends: not within the time that it is warned of, within it, or it has ended."""

    FINE = "fine"
    SOON = "soon"
    EXPIRED = "expired"


def expiry_of(expires: datetime | None, now: float, ahead: float = WARNED_BEFORE) -> Expiry:
    """That of something that ends at `expires`; None never ends. `now` in s since the epoch, `ahead` in s."""
    left = None if expires is None else expires.timestamp() - now
    if left is None or left > ahead:
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
    ends = [(f"the key of {one.principal} ({kid})", one.expires, WARNED_BEFORE) for kid, one in trust.by_kid.items()]
    ends += [("the root of trust", trust.root.expires, WARNED_BEFORE)]
    if trust.keys.expires is not None:
        life = (trust.keys.expires - trust.keys.issued_at).total_seconds()
        ends += [("the list of keys", trust.keys.expires, min(WARNED_BEFORE, life * _PART))]
    for what, expires, ahead in ends:
        if expires is not None and expiry_of(expires, now, ahead) is not Expiry.FINE:
            found.append((expires.timestamp(), f"{what} {_ends(expires, now)}"))
    return [text for _, text in sorted(found)]


def _ends(expires: datetime, now: float) -> str:
    days = int((expires.timestamp() - now) // DAY)
    day = f"{expires.astimezone(UTC):%Y-%m-%d}"
    if expiry_of(expires, now) is Expiry.EXPIRED:
        return f"expired on {day}: devices refuse it"
    return f"expires on {day}, in {days} day{'' if days == 1 else 's'}: devices refuse it then"
