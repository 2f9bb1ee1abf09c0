"""A schedule, its runs and the cells of its coverage, as they are stored.

Rule: plain data; `decisions` and `coverage` judge it. Instants are seconds since the epoch, durations seconds.
"""

from enum import StrEnum
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from control_plane.domain.jobs.spec import DAY, JobSpec
from control_plane.domain.reasons import Reason
from control_plane.domain.schedules.ticks import Cadence

Overlap = Literal["skip", "queue_one", "cancel_running", "allow"]
"""What a tick does while a job of the schedule runs."""

CatchUpRuns = Literal["all", "latest", "none"]
"""Which ticks are made up for that came while the control plane was down."""

DEFAULT_WITHIN: Final = 7 * DAY


class CatchUp(Struct, frozen=True):
    """Ticks up to `within` (s) ago are made up for: `all`, the `latest`, or `none`. Missing cells heal as long."""

    within: float = DEFAULT_WITHIN
    runs: CatchUpRuns = "latest"


class ScheduleSpec(Struct, frozen=True, kw_only=True):
    """What an operator requests: when, and which job.

    `jitter` (s) is the most by which every tick of this schedule begins later; how much depends on its id alone. After
    `pause_after_failures` failed runs in a row the schedule pauses; None never.
    """

    cadence: Cadence
    job: JobSpec
    overlap: Overlap = "skip"
    catch_up: CatchUp = CatchUp()
    jitter: float = 0.0
    pause_after_failures: int | None = None


class Schedule(Struct, frozen=True, kw_only=True):
    """One schedule.

    Every tick up to `cursor` has a run. `due_at` is when the runner looks at it next. A tick between `paused_at` and
    `resumed_at` is accounted for as paused. `delay` (s) is its share of the jitter. `failures` is how many runs in a
    row failed. `spec_version` rises with each change by a person, `version` with each commit.
    """

    schedule_id: str
    spec: ScheduleSpec
    created_at: float
    cursor: float
    due_at: float
    created_by: str = ""
    updated_at: float = 0.0
    spec_version: int = 1
    version: int = 0
    paused: bool = False
    paused_at: float | None = None
    resumed_at: float | None = None
    note: str = ""
    """Why it is paused."""
    skip_at: float | None = None
    """The tick that an operator skips."""
    failures: int = 0
    delay: float = 0.0

    def paused_during(self, at: float) -> bool:
        """Whether it was paused at this instant, as far as is known: of the last pause only."""
        if self.paused_at is None or at < self.paused_at:
            return False
        return self.paused or (self.resumed_at is not None and at <= self.resumed_at)


class RunKind(StrEnum):
    """What makes a run."""

    TICK = "tick"
    MANUAL = "manual"
    BACKFILL = "backfill"


HEAL: Final = "heal"
"""The kind of a job that heals missing cells; it has no run."""


class RunStatus(StrEnum):
    """What became of a tick. Final but `queued`."""

    QUEUED = "queued"
    FIRED = "fired"
    SKIPPED_OVERLAP = "skipped_overlap"
    SKIPPED_BY_OPERATOR = "skipped_by_operator"
    PAUSED = "paused"
    MISSED = "missed"
    BACKFILLED = "backfilled"


class RunKey(NamedTuple):
    """The identity of a run."""

    schedule_id: str
    kind: RunKind
    nominal_at: float


class ScheduleRun(Struct, frozen=True, kw_only=True):
    """One tick, or one run that an operator started.

    `queued` is whether it waited in the queue, where runs are made one at a time. `ended_at` is when its job was over;
    None while it runs, or when there is no job.
    """

    schedule_id: str
    kind: RunKind
    nominal_at: float
    status: RunStatus
    reason: Reason
    at: float
    """When its status was decided."""
    queued: bool = False
    job_id: str | None = None
    ended_at: float | None = None
    outcome: str | None = None
    """The end of its job: `all`, `partial` or `none`."""

    @property
    def key(self) -> RunKey:
        """Its identity."""
        return RunKey(self.schedule_id, self.kind, self.nominal_at)

    @property
    def running(self) -> bool:
        """Whether its job is not over, as far as is known."""
        return self.job_id is not None and self.ended_at is None


class CellState(StrEnum):
    """What is known of one client at one tick."""

    PENDING = "pending"
    PROVEN = "proven"
    UNCHANGED = "unchanged"
    EMPTY = "empty"
    MISSING = "missing"
    HEALED = "healed"


class Cell(Struct, frozen=True, kw_only=True):
    """One client at one tick.

    `job_id` is the job of the tick. While `healing`, `heal_job_id` is the job that tries once more; `heals` counts the
    tries. `settled`: a person or the device decided the end, so it is not tried again.
    """

    schedule_id: str
    client_id: str
    nominal_at: float
    state: CellState
    reason_code: str
    """Of its execution."""
    job_id: str
    at: float
    """When its execution became so."""
    healing: bool = False
    heal_job_id: str | None = None
    heals: int = 0
    settled: bool = False
    watch_until: float = 0.0
