"""What a device may still send by its own caps and conditions, as far as its last report shows.

Rule: pure. The device decides: it counts every byte, and holds to its caps over what it was granted. What is computed
here is a forecast from its last report and from the grants since, so that nothing is granted that it would only keep.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.reported import DEVICE_WAITS
from schemas.values import BudgetUse, DeviceBudget

LEDGER_LIFE: Final = 600.0
"""Seconds after its last grant in which a device has used what it was granted, or does not. A device reports its use
within a minute, so what is not in its report by then was not sent."""

LONGEST_PERIOD: Final = 32 * 86_400.0
"""Seconds, more than a month: a reset further ahead was reported by a clock that was wrong."""

MAX_PAID: Final = 64
"""Requests that a ledger remembers as granted."""

_OF_CAPS: Final = (ReasonCode.DEVICE_BUDGET, ReasonCode.DEVICE_METERED)
_TEXTS: Final[Mapping[str, str]] = {
    ReasonCode.DEVICE_BUDGET: "the device has used up its bytes",
    ReasonCode.DEVICE_METERED: "the device has used up its bytes of metered links",
    ReasonCode.DEVICE_DISK: "the device has too little free disk",
    ReasonCode.DEVICE_BATTERY: "the battery of the device is too low",
    ReasonCode.DEVICE_LOAD: "the load of the device is too high",
    ReasonCode.DEVICE_HOURS: "the policy of the device allows other hours of the day",
    ReasonCode.DEVICE_CONSENT: "a person on the device has to allow it",
}


class Paid(Struct, frozen=True):
    """A request that was granted: the same request again is granted the same bytes, and charges nothing."""

    upload_id: str
    attempt: int
    sequence: int
    bytes: int


class Ledger(Struct, frozen=True):
    """What was granted to a device and is not in its report: `outstanding` bytes, when it had reported `used`.

    `at` (s since the epoch) is the instant of the last grant.
    """

    outstanding: int = 0
    used: int = 0
    at: float = 0.0
    paid: tuple[Paid, ...] = field(default=())

    def paid_for(self, upload_id: str, attempt: int, sequence: int) -> int | None:
        """The bytes that this request was granted; None when it was not."""
        name = (upload_id, attempt, sequence)
        return next((one.bytes for one in self.paid if (one.upload_id, one.attempt, one.sequence) == name), None)


class Room(Struct, frozen=True):
    """The `bytes` that one cap of a device leaves; `cap` names it, `code` is the reason when there are too few.

    `whole`: nothing of it is used, so there will never be more. `resets_at` (s since the epoch) is when there is more,
    None when that is not known.
    """

    bytes: int
    whole: bool
    resets_at: float | None
    code: ReasonCode
    cap: str

    def lacks(self, size: int) -> bool:
        """Whether `size` bytes must wait. What is larger than the whole cap is for the device to decide."""
        return self.bytes < size and not self.whole


class DeviceFacts(Struct, frozen=True):
    """What each cap of a device leaves, and why the device itself sends nothing, until when (s since the epoch).

    `hold` is None while it sends; `until` is None when only the device knows.
    """

    rooms: tuple[Room, ...] = ()
    hold: Reason | None = None
    until: float | None = None

    @property
    def most(self) -> int | None:
        """The bytes that all caps leave; None without a cap."""
        return min((room.bytes for room in self.rooms), default=None)


def caps_of(budget: DeviceBudget) -> dict[str, BudgetUse]:
    """The caps that hold on its present link, by their names."""
    return {name: use for name, use in budget.caps.items() if budget.metered or name in {"day", "month"}}


def concerns_grants(budget: DeviceBudget | None) -> bool:
    """Whether a grant to the device needs a look at its room."""
    return budget is not None and bool(budget.holds or caps_of(budget))


def facts_of(budget: DeviceBudget | None, ledger: Ledger, now: float) -> DeviceFacts:
    """What the device may still be sent at `now` (s since the epoch).

    A period that has ended by now counts as unused: the device need not have reported that yet.
    """
    if budget is None:
        return DeviceFacts()
    owed = settled(budget, ledger, now).outstanding
    rooms = tuple(_room(name, one, owed, ledger, now) for name, one in caps_of(budget).items())
    hold, until = _hold(budget, now)
    return DeviceFacts(rooms, hold, until)


def charged(budget: DeviceBudget, ledger: Ledger, paid: Paid, now: float) -> Ledger:
    """The ledger after a grant of `paid.bytes` at `now`. Without a cap that holds, nothing is counted."""
    if not caps_of(budget):
        return ledger
    before = settled(budget, ledger, now)
    others = [one for one in before.paid if one.upload_id != paid.upload_id]
    return Ledger(before.outstanding + paid.bytes, before.used, now, (*others[1 - MAX_PAID :], paid))


def eases(before: DeviceBudget | None, after: DeviceBudget | None) -> bool:
    """Whether a device may send more than it might by its report before: what waits for it is asked again."""
    if before is None or before == after:
        return False
    if after is None or set(before.holds) - set(after.holds):
        return True
    then, now = caps_of(before), caps_of(after)
    return any(name not in now or _left(now[name]) > _left(one) for name, one in then.items())


def _left(use: BudgetUse) -> int:
    return use.cap - use.used


def _counter(budget: DeviceBudget, now: float) -> int:
    """The bytes that the device reports of its longest period: they only grow within it."""
    for use in (budget.month, budget.day, budget.metered_month, budget.metered_day):
        if use is not None:
            return used_at(use, now)
    return 0


def settled(budget: DeviceBudget, ledger: Ledger, now: float) -> Ledger:
    """The ledger without what the device has reported as sent since, and without what is too old to be sent.

    Kept at each report: the next one may be of a new period, and no longer show what was sent in this one.
    """
    used = _counter(budget, now)
    if not 0 <= now - ledger.at < LEDGER_LIFE:
        return Ledger(used=used)
    sent = used - ledger.used if used >= ledger.used else used
    return replace(ledger, outstanding=max(0, ledger.outstanding - sent), used=used)


def used_at(use: BudgetUse, now: float) -> int:
    """The bytes used of a cap at `now`: none once its period has ended."""
    return 0 if is_over(use, now) else use.used


def is_over(use: BudgetUse, now: float) -> bool:
    """Whether the period of a report has ended by `now` (s since the epoch)."""
    return use.resets_at is not None and use.resets_at.timestamp() <= now


def _resets_at(use: BudgetUse, now: float) -> float | None:
    """When more of it is free, if its device knows, by a clock that is right."""
    at = None if use.resets_at is None else use.resets_at.timestamp()
    return at if at is not None and now < at < now + LONGEST_PERIOD else None


def _room(name: str, use: BudgetUse, owed: int, ledger: Ledger, now: float) -> Room:
    left = max(0, use.cap - used_at(use, now) - owed)
    code = ReasonCode.DEVICE_METERED if name.startswith("metered") else ReasonCode.DEVICE_BUDGET
    resets_at = _resets_at(use, now)
    if owed:
        # What it was granted and does not send is free again by then.
        unused_at = ledger.at + LEDGER_LIFE
        resets_at = unused_at if resets_at is None else min(resets_at, unused_at)
    cap = f"{use.cap} bytes a {name.removeprefix('metered_')}"
    return Room(left, whole=left == use.cap, resets_at=resets_at, code=code, cap=cap)


def _hold(budget: DeviceBudget, now: float) -> tuple[Reason | None, float | None]:
    """Why the device itself sends nothing, and until when.

    Caps that it has reached are passed over once all their periods have ended: its next report comes a little later.
    """
    for code in budget.holds:
        until = None
        if code in _OF_CAPS:
            uses = _behind(code, budget)
            if uses and all(is_over(use, now) for use in uses):
                continue
            ends = [_resets_at(use, now) for use in uses if not is_over(use, now)]
            until = max((at for at in ends if at is not None), default=None) if None not in ends else None
        text = _TEXTS.get(code, f"the device reports {code}") + ("" if until is None else f", until {utc(until)}")
        return Reason(code if code in DEVICE_WAITS else ReasonCode.CLIENT_REPORTED, text), until
    return None, None


def _behind(code: str, budget: DeviceBudget) -> list[BudgetUse]:
    """The caps that this code is about, and that the device has reached; all of them where it has reached none."""
    metered = code == ReasonCode.DEVICE_METERED
    uses = [use for name, use in caps_of(budget).items() if name.startswith("metered") == metered]
    return [use for use in uses if use.used >= use.cap] or uses


def utc(at: float) -> str:
    """An instant (s since the epoch) for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
