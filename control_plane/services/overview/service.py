"""The fleet in numbers: who is there, what moves, what waits and why, and how it went.

Rule: each number counts exactly the rows that a list with the same filter has. It is computed at most once a second in
one process, for all who look: a change of the fleet makes each open page read again. Those of a large fleet, where each
client is read, are computed more rarely, and meanwhile all get the numbers before.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from control_plane.domain.access import Principal
from control_plane.domain.clients import CONNECTED_FOR
from control_plane.domain.selectors import Selector
from control_plane.domain.uploads.model import OPEN, TERMINAL, State
from control_plane.services.clients.beats import Beats
from control_plane.services.clients.reach import reach_of
from control_plane.services.errors import BadInput
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.overview import Ended
from control_plane.services.uploads.views import UploadViews

T = TypeVar("T")

DAY: Final = 86_400.0
HOUR: Final = 3_600
MAX_HOURS: Final = 168
MOST_OPEN: Final = 20_000
"""Open uploads that are counted by their reasons."""

COMMONEST: Final = 3
_KEPT_FOR: Final = 1.0
"""Seconds for which numbers are as good as new."""

LARGE: Final = 5_000
"""Clients from which on nobody waits for a computation who can have the numbers before: it takes longer than a list."""

_REST: Final = 10
"""Those of so many are computed again after this many times the length of that: it takes a tenth of a core at most."""

_LONGEST_REST: Final = 5.0
OLDEST: Final = 10.0
"""Seconds after which numbers are given to nobody."""

_Key = tuple[str, Selector | None, float]
"""What is computed: its name, for which reach, and from which time."""

_MOST_KEPT: Final = 16


@dataclass(slots=True)
class _Kept:
    """The numbers of one key, and the computation of the next ones. `began` is by the steady clock (s), as `took`."""

    task: asyncio.Task[Any] | None = None
    found: Any = None
    began: float = -math.inf
    took: float = 0.0

    @property
    def large(self) -> bool:
        """Whether they are about so many clients that they are given while the next ones are computed."""
        return isinstance(self.found, FleetNumbers) and self.found.clients >= LARGE

    def fresh(self, now: float) -> bool:
        """Whether the numbers are given without another computation."""
        rest = min(self.took * _REST, _LONGEST_REST) if self.large else 0.0
        return now - self.began < max(_KEPT_FOR, rest)

    def good_enough(self, now: float) -> bool:
        """Whether the numbers are given while the next ones are computed."""
        return self.large and now - self.began < OLDEST


@dataclass(frozen=True, slots=True)
class FleetNumbers:
    """The fleet at `as_of`; what ended is counted from `since` on, `failures` in the last day (all s since the epoch).

    `open` has every state that is not terminal, `ended` every other one. `waiting` has the reason codes of the control
    plane's open uploads, commonest first, also of those that move; `counted` is False where there are more than could
    be counted. `failures` are the commonest error codes.
    """

    as_of: float
    since: float
    connected: int
    offline: int
    never_seen: int
    open: Mapping[State, int]
    waiting: tuple[tuple[str, int], ...]
    counted: bool
    ended: Mapping[State, int]
    bytes: int
    failures: tuple[tuple[str, int], ...]
    failures_since: float

    @property
    def clients(self) -> int:
        """How many clients the numbers are about."""
        return self.connected + self.offline + self.never_seen


@dataclass(frozen=True, slots=True)
class HourNumbers:
    """One hour from `begins_at` (s since the epoch): bytes of completed uploads, and how many ended in each state."""

    begins_at: float
    bytes: int
    ended: Mapping[State, int]


class OverviewService:
    """What a caller may see of the fleet as a whole."""

    def __init__(self, database: Database, clock: Clock, beats: Beats, views: UploadViews, owner: str) -> None:
        self._database = database
        self._clock = clock
        self._beats = beats
        self._views = views
        self._owner = owner
        self._kept: dict[_Key, _Kept] = {}
        self._turn = asyncio.Lock()

    async def fleet(self, principal: Principal, since: float | None = None) -> FleetNumbers:
        """The numbers of now; without `since` of today in UTC. `BadInput` for more than a week, or the future.

        The clock of a reader may be ahead: what is ahead by less than an hour is now.
        """
        now = self._clock.now()
        start = now - now % DAY if since is None else since
        if not now - 7 * DAY - HOUR <= start <= now + HOUR:
            message = "since must be an instant of the last seven days"
            raise BadInput(message)
        reach = reach_of(principal)
        return await self._once(("fleet", reach, start), lambda records: self._fleet(records, start, now, reach))

    async def history(self, principal: Principal, hours: int = 24) -> list[HourNumbers]:
        """Whole hours of the epoch, oldest first; the last one is not over. `DatabaseUnavailable`."""
        now = self._clock.now()
        last = now - now % HOUR
        starts = [last - HOUR * back for back in reversed(range(min(hours, MAX_HOURS)))]

        reach = reach_of(principal)

        def work(records: Records) -> list[HourNumbers]:
            return [_hour(start, records.overview.ended(start, start + HOUR, reach)) for start in starts]

        return await self._once(("history", reach, float(hours)), work)

    def _fleet(self, records: Records, since: float, now: float, reach: Selector | None) -> FleetNumbers:
        overview = records.overview
        presences = overview.presences(reach)
        seen_at = self._beats.seen_at
        connected = sum(abs(now - seen_at(*row)) < CONNECTED_FOR for row in presences.online)
        found = overview.open_uploads(self._owner, MOST_OPEN, reach)
        waiting = Counter(self._views.code_of(one, now) for one in found)
        ended = overview.ended(since, now + DAY, reach)
        return FleetNumbers(
            as_of=now,
            since=since,
            connected=connected,
            offline=presences.total - presences.never_seen - connected,
            never_seen=presences.never_seen,
            open={state: count for state, count in overview.count_open(reach).items() if state in OPEN},
            waiting=tuple(waiting.most_common()),
            counted=len(found) < MOST_OPEN,
            ended=_counts(ended),
            bytes=_bytes(ended),
            failures=tuple(overview.errors(now - DAY, COMMONEST, reach)),
            failures_since=now - DAY,
        )

    async def _once(self, key: _Key, work: Callable[[Records], T]) -> T:
        """The result of a second ago at most; of a large fleet, of `OLDEST` seconds ago at most.

        Callers at one moment share a computation.
        """
        now = self._clock.monotonic()
        kept = self._kept.get(key)
        if kept is None:
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[min(self._kept, key=lambda one: self._kept[one].began)]
            kept = self._kept[key] = _Kept()
        if not kept.fresh(now):
            if kept.task is None or kept.task.done():
                kept.task = asyncio.create_task(self._compute(kept, work))
                # Nobody may wait for it: an error that no one takes would be logged.
                kept.task.add_done_callback(lambda task: task.cancelled() or task.exception())
            if not kept.good_enough(now):
                # A caller that leaves does not end it for the others.
                fresh: T = await asyncio.shield(kept.task)
                return fresh
        found: T = kept.found
        return found

    async def _compute(self, kept: _Kept, work: Callable[[Records], T]) -> T:
        if not kept.large:
            return await self._computed(kept, work)
        # One after the other: each keeps a processor busy, and seldom does a caller wait for it.
        async with self._turn:
            return await self._computed(kept, work)

    async def _computed(self, kept: _Kept, work: Callable[[Records], T]) -> T:
        began = self._clock.monotonic()
        found = await self._database.read(work)
        kept.found, kept.began, kept.took = found, began, self._clock.monotonic() - began
        return found


def _hour(begins_at: float, ended: Mapping[State, Ended]) -> HourNumbers:
    return HourNumbers(begins_at, _bytes(ended), _counts(ended))


def _counts(ended: Mapping[State, Ended]) -> dict[State, int]:
    return {state: ended[state].count if state in ended else 0 for state in State if state in TERMINAL}


def _bytes(ended: Mapping[State, Ended]) -> int:
    return ended[State.COMPLETED].size if State.COMPLETED in ended else 0
