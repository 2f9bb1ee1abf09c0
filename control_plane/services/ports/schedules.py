"""Schedules, their runs and their coverage in the database.

Rule: a schedule changes by compare-and-set on its version. A run is inserted once and never deleted before its schedule
or its history, so the primary key decides which replica makes it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from control_plane.domain.jobs.model import ExecutionState
from control_plane.domain.schedules.model import Cell, CellState, RunKey, RunKind, RunStatus, Schedule, ScheduleRun
from control_plane.domain.selectors import Selector
from control_plane.services.ports.database import Page

SchedulePage = tuple[list[Schedule], str | None]
RunPage = tuple[list[ScheduleRun], str | None]

CellCounts = Mapping[float, Mapping[CellState, int]]
"""By nominal instant: how many cells are in each state."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs of a schedule; None means any. `since` and `until` are nominal instants, both included."""

    schedule_id: str
    kinds: frozenset[RunKind] | None = None
    statuses: frozenset[RunStatus] | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class CellFilter:
    """Which cells of a schedule. `since` and `until` are nominal instants, both included.

    With `state`, only clients that have such a cell there; with `reach`, only known clients that it selects.
    """

    schedule_id: str
    since: float
    until: float
    state: CellState | None = None
    reach: Selector | None = None


CellPage = tuple[list[tuple[str, list[Cell]]], str | None]
"""Clients with their cells by nominal instant, by client id; and the cursor of the next page."""


class CellPosition(NamedTuple):
    """The place of a cell in the order in which they are looked at."""

    watch_until: float
    schedule_id: str = ""
    client_id: str = ""
    nominal_at: float = 0.0


class EndedCell(NamedTuple):
    """A cell with an execution, or a healing execution, that is over."""

    cell: Cell
    state: ExecutionState
    reason: str
    """The code of the execution's reason."""
    ended_at: float

    @property
    def position(self) -> CellPosition:
        """Its place."""
        cell = self.cell
        return CellPosition(cell.watch_until, cell.schedule_id, cell.client_id, cell.nominal_at)


class ScheduleRecords(Protocol):
    """Schedules with their runs."""

    def get(self, schedule_id: str) -> Schedule | None:
        """One schedule."""

    def add(self, schedule: Schedule) -> None:
        """Insert at `version` 0; `KeyTaken` when the id is in use."""

    def save(self, before: Schedule, after: Schedule) -> Schedule:
        """Write `after` over `before` and return it with `version` one higher; `VersionConflict`."""

    def delete(self, schedule_id: str) -> bool:
        """Delete a schedule with its runs and its coverage, not its jobs; False when it does not exist."""

    def list(self, page: Page) -> SchedulePage:
        """By id."""

    def due(self, now: float, limit: int) -> Sequence[str]:
        """The ids of schedules with a `due_at` up to `now`, earliest first."""

    def with_ended_jobs(self, limit: int) -> Sequence[str]:
        """The ids of schedules that have a run whose job is over, and which does not know it yet."""

    def run(self, key: RunKey) -> ScheduleRun | None:
        """One run."""

    def add_runs(self, runs: Sequence[ScheduleRun]) -> int:
        """Insert those that do not exist; returns their number."""

    def save_run(self, run: ScheduleRun) -> None:
        """Replace one run."""

    def running(self, schedule_id: str) -> Sequence[ScheduleRun]:
        """Runs with a job that is not known to be over, by nominal instant."""

    def next_queued(self, schedule_id: str) -> ScheduleRun | None:
        """The queued run with the earliest nominal instant."""

    def queued_for(self, schedule_id: str, code: str) -> bool:
        """Whether a tick is queued for the reason of this code."""

    def count_queued(self, schedule_id: str) -> int:
        """How many runs are queued."""

    def runs(self, where: RunFilter, page: Page) -> RunPage:
        """The latest nominal instant first."""

    def prune(self, before: float, limit: int) -> int:
        """Delete up to `limit` runs that were decided before this instant and wait for nothing; their number."""


class CoverageRecords(Protocol):
    """The cells of schedules: one for each client that a tick's job had at its creation."""

    def add(self, schedule_id: str, nominal_at: float, job_id: str, *, now: float, watch_until: float) -> int:
        """Insert a pending cell for each execution of the job; returns their number.

        A cell is watched until `watch_until`: then its execution, and the job that heals it, are over.
        """

    def ended(self, after: CellPosition, limit: int) -> Sequence[EndedCell]:
        """Watched cells behind this position whose execution ended since the cell was last written, in their order.

        `CellPosition(now)` is in front of all that are still watched.
        """

    def save(self, changes: Sequence[tuple[Cell, Cell]]) -> None:
        """Write each second over its first, and adjust the counts; `VersionConflict` when a first is not stored."""

    def healable(self, schedule_id: str, since: float, limit: int) -> Sequence[Cell]:
        """Missing cells with a nominal instant from `since` on, whose client is connected, and may have what it lacked.

        That is a client that connected after the cell became missing, or whose job was over before it was asked. Of
        each client the earliest, and none of a client that is healing one.
        """

    def with_missing(self, since: float) -> Sequence[str]:
        """The ids of schedules that have missing cells with a nominal instant from `since` on."""

    def counts(self, schedule_id: str, since: float, until: float) -> CellCounts:
        """The cells by nominal instant and state; both instants are included."""

    def counts_within(self, schedule_id: str, since: float, until: float, reach: Selector) -> CellCounts:
        """The same, of the known clients that `reach` selects."""

    def covering(self, reach: Selector) -> Collection[str]:
        """The ids of schedules that have a cell of a known client that `reach` selects."""

    def recounted(self, schedule_id: str) -> CellCounts:
        """The same, from the cells themselves: a scan, to check the counts."""

    def list(self, where: CellFilter, page: Page) -> CellPage:
        """Clients with their cells."""

    def prune(self, before: float, limit: int, *, now: float) -> int:
        """Delete up to `limit` cells with a nominal instant before `before` that are not watched; their number."""
