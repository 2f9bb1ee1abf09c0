"""The gate: may an execution begin, may bytes leave a device?

Rule: pure. `may_grant` asks in one fixed order, and the first refusal is the reason that is shown: operator's pause,
approval, window, stage, dispatch rate, running cap, budget, the device's own caps and conditions, client quota.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final, Literal

from msgspec import Struct

from control_plane.domain.gate.devices import DeviceFacts, utc
from control_plane.domain.reasons import Reason, ReasonCode
from schemas.parts import MIB
from schemas.values import WantedPart

MAX_GRANT: Final = 64 * MIB
"""Bytes of one grant; more only if one part is larger. After a pause, at most one grant of an upload is still sent."""

BUDGETED_SECONDS: Final = 10.0
"""Seconds of a budget that one grant may take: all its waiters have a turn before long."""

LONGEST_PART: Final = 60
"""Seconds that one part may take at the rate that is sent to its device."""

UNLIMITED: Final = 2**53 - 1
"""The rate (bytes a second) that lifts one that was sent before."""

TURN: Final = 2.0
"""Seconds that each waiter of a budget has to take its turn before the next one may."""

CAP_PAUSE: Final = 5.0
QUOTA_PAUSE: Final = 60.0
"""Seconds after which full jobs and clients are checked again. The end of another execution opens them sooner."""

LAST_TURN: Final = 4
"""Waiters that have a turn of their own; those behind them share the one after it."""


class Wait(Struct, frozen=True):
    """Not now. `wake_at` (s since the epoch) is when to try again; None until an operator or another event opens it.

    With `whole_job` the same answer holds for every execution of the job that has not begun.
    """

    reason: Reason
    wake_at: float | None
    whole_job: bool = False


class Permit(Struct, frozen=True):
    """Yes: at most `bytes`, or one part if that is larger; None is no limit.

    `rate` (bytes a second) is what the device may not exceed from now on; None changes nothing. For a budget,
    `for_seconds` is how long these bytes are paid off.
    """

    bytes: int | None = None
    rate: int | None = None
    for_seconds: float = 0.0


class Want(Struct, frozen=True):
    """The question at `now`: `begins` is the dispatch of an execution, else a grant of at least one part of `part`."""

    now: float
    begins: bool
    part: int = 0


class Opening(Struct, frozen=True):
    """The state of a job's windows: whether one is open, when the next one opens, and what the end of the last means.

    `opens_at` is None when none opens within a year.
    """

    open: bool = True
    opens_at: float | None = None
    on_end: Literal["pause", "finish"] = "pause"
    of_job: bool = True
    """Whether it is the same for every client of the job."""


class Turn(Struct, frozen=True):
    """A budget of `rate` (bytes a second) that applies, free at `free_at`, with so many better waiters (`ahead`)."""

    key: str
    rate: int
    free_at: float
    ahead: int = 0

    @property
    def begins_at(self) -> float:
        """When it is this waiter's turn: those ahead of it had theirs by then."""
        if self.ahead <= LAST_TURN:
            return self.free_at + TURN * self.ahead
        return self.free_at + TURN * LAST_TURN + (self.ahead - LAST_TURN) * BUDGETED_SECONDS


class Facts(Struct, frozen=True, kw_only=True):
    """All that the gate looks at. The defaults let everything pass."""

    ending: bool = False
    """Whether the job is over, or its open uploads are being cancelled."""
    paused: bool = False
    unapproved: bool = False
    windows: Opening = Opening()
    in_stage: bool = True
    dispatch_free_at: float = 0.0
    running: int = 0
    max_running: int | None = None
    turns: tuple[Turn, ...] = ()
    device: DeviceFacts = DeviceFacts()
    over_quota: str | None = None
    """Why the client may begin no more, as a sentence."""


def allowance(part: int, rates: tuple[int, ...]) -> int:
    """Bytes that one grant may have under budgets of these rates: never less than one part.

    >>> allowance(5 * MIB, (MIB,)) // MIB, allowance(5 * MIB, (1000,)) // MIB, allowance(5 * MIB, ()) // MIB
    (10, 5, 64)
    """
    return max(part, min([MAX_GRANT, *(int(rate * BUDGETED_SECONDS) for rate in rates)]))


def told_rate(part: int, rates: Sequence[int]) -> int:
    """Bytes a second that a device may send under budgets of these rates: never so few that a part takes a minute.

    A part that takes longer would outlive its URL; the budgets hold on average all the same.

    >>> told_rate(5 * MIB, (MIB, 2 * MIB)) // MIB, told_rate(60 * MIB, (1000,)) // MIB
    (1, 1)
    """
    return max(min(rates), -(-part // LONGEST_PART))


def within(parts: Sequence[WantedPart], most: int | None) -> tuple[WantedPart, ...]:
    """The first parts that `most` bytes hold, and one at least."""
    if most is None:
        return tuple(parts)
    sums = accumulate(part.size for part in parts)
    return tuple(part for n, (part, total) in enumerate(zip(parts, sums, strict=True)) if n == 0 or total <= most)


def may_grant(want: Want, facts: Facts) -> Permit | Wait:
    """The gate's decision."""
    refusal = _of_job(want, facts) or (_of_rollout(want, facts) if want.begins else None)
    refusal = refusal or _of_budget(want, facts) or _of_device(want, facts) or _of_quota(want, facts)
    if refusal is not None:
        return refusal
    if want.begins:
        return Permit()
    rates = tuple(turn.rate for turn in facts.turns)
    size = allowance(want.part, rates)
    if facts.device.most is not None:
        # One part at least: the device decides about one that is larger than its whole cap.
        size = max(want.part, min(size, facts.device.most))
    return Permit(size, told_rate(want.part, rates), size / min(rates)) if rates else Permit(size)


def _of_job(want: Want, facts: Facts) -> Wait | None:
    if facts.ending:
        return Wait(Reason(ReasonCode.JOB_ENDED, "the job is over or is being ended"), None, whole_job=True)
    if facts.paused:
        return Wait(Reason(ReasonCode.JOB_PAUSED, "an operator paused the job"), None, whole_job=True)
    if facts.unapproved:
        return Wait(Reason(ReasonCode.APPROVAL_PENDING, "an operator has not approved it yet"), None)
    windows = facts.windows
    if windows.open or (windows.on_end == "finish" and not want.begins):
        return None
    text = "none of the job's windows opens within a year"
    if windows.opens_at is not None:
        text = f"the next window opens at {utc(windows.opens_at)}"
    return Wait(Reason(ReasonCode.OUTSIDE_WINDOW, text), windows.opens_at, whole_job=windows.of_job)


def _of_rollout(want: Want, facts: Facts) -> Wait | None:
    if not facts.in_stage:
        return Wait(Reason(ReasonCode.STAGE_NOT_REACHED, "the stage of its client has not begun"), None)
    if facts.dispatch_free_at > want.now:
        text = "the job begins no more executions a minute than this"
        return Wait(Reason(ReasonCode.DISPATCH_RATE, text), facts.dispatch_free_at, whole_job=True)
    if facts.max_running is not None and facts.running >= facts.max_running:
        text = f"{facts.running} executions of the job run, and no more than {facts.max_running} may"
        return Wait(Reason(ReasonCode.RUNNING_CAP, text), want.now + CAP_PAUSE, whole_job=True)
    return None


def _of_budget(want: Want, facts: Facts) -> Wait | None:
    late = [turn for turn in facts.turns if turn.begins_at > want.now]
    if not late:
        return None
    last = max(late, key=lambda turn: (turn.begins_at, turn.key))
    ahead = f", {last.ahead} before it" if last.ahead else ""
    text = f"the budget of {last.key} ({last.rate} bytes a second) is spent until {utc(last.free_at)}{ahead}"
    return Wait(Reason(ReasonCode.BUDGET_SPENT, text), last.begins_at)


def _of_device(want: Want, facts: Facts) -> Wait | None:
    """An execution that begins needs room for a byte, a grant for its first part.

    Caps of metered links are left to the grant: a device at rest does not look whether it has another link by now.
    """
    device, size = facts.device, max(1, want.part)
    if device.hold is not None:
        return Wait(device.hold, device.until)
    counted = [room for room in device.rooms if not (want.begins and room.code is ReasonCode.DEVICE_METERED)]
    lacking = [room for room in counted if room.lacks(size)]
    if not lacking:
        return None
    known = [room for room in lacking if room.resets_at is not None]
    last = max(known or lacking, key=lambda room: room.resets_at or 0.0)
    text = f"the device may send {last.cap}, which leave {last.bytes}"
    wake_at = last.resets_at if len(known) == len(lacking) else None
    return Wait(Reason(last.code, text + ("" if wake_at is None else f" until {utc(wake_at)}")), wake_at)


def _of_quota(want: Want, facts: Facts) -> Wait | None:
    if facts.over_quota is None or not want.begins:
        return None
    return Wait(Reason(ReasonCode.CLIENT_QUOTA, facts.over_quota), want.now + QUOTA_PAUSE)
