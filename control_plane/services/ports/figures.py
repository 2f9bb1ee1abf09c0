"""The figures of the whole fleet that monitoring shows, read at once.

Rule: each is answered by an index or by sums that are kept; what has no such answer is counted up to `MOST`. They are
cheap at any size of the history, since a monitoring system reads every few seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from control_plane.domain.jobs.model import JobState
from control_plane.domain.schedules.model import CellState
from control_plane.domain.uploads.model import State

MOST: Final = 10_000
"""Rows of one kind that are counted one by one."""

MOST_SCHEDULES: Final = 1_000
COVERED: Final = 86_400.0
"""The span (s) of ticks in the coverage that is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The state of the database at one instant; instants are seconds since the epoch.

    `uploads` are the open ones by state, `oldest` when the oldest of each was created. `held` are the uploads that the
    gate holds, by reason code, up to `MOST`. `executions` are those of open jobs, by state and reason code. `coverage`
    are the cells of each schedule's ticks in the last `COVERED` seconds. `due_at` is the earliest duty that is due or
    will be. `deliveries_dead` and `deliveries_waiting` count up to `MOST`.
    """

    uploads: Mapping[State, int] = field(default_factory=dict)
    oldest: Mapping[State, float] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    jobs: Mapping[JobState, int] = field(default_factory=dict)
    executions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    coverage: Mapping[str, Mapping[CellState, int]] = field(default_factory=dict)
    schedules_active: int = 0
    schedules_paused: int = 0
    clients_online: int = 0
    clients_offline: int = 0
    due_at: float | None = None
    deliveries_dead: int = 0
    deliveries_waiting: int = 0


class FigureRecords(Protocol):
    """The figures, inside one transaction."""

    def read(self, now: float) -> Figures:
        """All of them; `now` is in seconds since the epoch."""
