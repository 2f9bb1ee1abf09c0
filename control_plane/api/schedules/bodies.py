"""The bodies and queries of schedules, and how a body becomes a specification.

Rule: as in `api.jobs.bodies`. What a schedule leaves out follows from whether its job uses `{tick}`.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final, Self

from msgspec.structs import replace
from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from control_plane.api.bodies import Input, Whole, matching, read_instant
from control_plane.api.jobs.bodies import JobBody
from control_plane.api.parameters import Paged
from control_plane.api.schedules import examples
from control_plane.domain.jobs.durations import read_seconds
from control_plane.domain.jobs.spec import DAY, JobSpec
from control_plane.domain.schedules.model import (
    DEFAULT_WITHIN,
    CatchUp,
    CatchUpRuns,
    CellState,
    Overlap,
    RunKind,
    RunStatus,
    ScheduleSpec,
)
from control_plane.domain.schedules.ticks import Cadence, read_cron, read_every, read_zone
from control_plane.services.schedules.coverage import LONGEST_WITHIN
from control_plane.services.schedules.service import MAX_PREVIEW

_MOST_FAILURES: Final = 1_000
_DURATION: Final = WithJsonSchema(
    {"description": "`24h`, `1h30m`, or seconds.", "anyOf": [{"type": "string"}, {"type": "number"}]}
)

ScheduleId = Annotated[
    str,
    *matching(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,33}\Z", "must be 1 to 34 of A-Z a-z 0-9 . _ - and begin with a letter or a digit"
    ),
]


def _moment(value: object) -> float:
    """An instant (s since the epoch)."""
    if (instant := read_instant(value)) is not None:
        return instant.timestamp()
    message = "must be an RFC 3339 instant such as 2026-11-26T03:00:00Z"
    raise ValueError(message)


def _up_to(most: float, shown: str) -> Callable[[object], float]:
    def read(value: object) -> float:
        seconds = read_seconds(value)
        if not 0 <= seconds <= most:
            message = f"must be at most {shown}"
            raise ValueError(message)
        return seconds

    return read


Moment = Annotated[float, PlainValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
Interval = Annotated[float, PlainValidator(lambda value: read_every(read_seconds(value))), _DURATION]
Within = Annotated[float, PlainValidator(_up_to(LONGEST_WITHIN, "90 days")), _DURATION]
Jitter = Annotated[float, PlainValidator(_up_to(DAY, "1 day")), _DURATION]


class CatchUpInput(Input):
    """Which ticks are made up for that came while the control plane was down, and how old they may be."""

    within: Within = DEFAULT_WITHIN
    runs: CatchUpRuns | None = None


class ScheduleBody(Input):
    """When, and which job: `cron` in `zone`, or `every` so often, counted from 1970-01-01T00:00Z."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.NEW_SCHEDULE]})

    cron: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(read_cron)] | None = None
    every: Interval | None = None
    zone: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(read_zone)] = "UTC"
    job: JobBody
    overlap: Annotated[
        Overlap | None, Field(description="`allow` if the job uses `{tick}`, else `skip`, when left out.")
    ] = None
    catch_up: CatchUpInput = CatchUpInput()
    jitter: Jitter = 0.0
    pause_after_failures: Annotated[int, Field(strict=True, ge=1, le=_MOST_FAILURES), Whole] | None = None

    @model_validator(mode="after")
    def _one_cadence(self) -> Self:
        if (self.cron is None) == (self.every is None):
            message = "a schedule ticks by cron or every so often: give one of cron and every"
            raise ValueError(message)
        if isinstance(self.job.deadline, datetime):
            message = "job.deadline must be a duration such as 36h: every job of the schedule has its own"
            raise ValueError(message)  # noqa: TRY004 - pydantic takes a ValueError for a refusal
        return self

    def spec(self) -> ScheduleSpec:
        """The specification. The job's zone is the schedule's, unless it has its own."""
        job = self._job()
        runs: CatchUpRuns = self.catch_up.runs or ("all" if job.uses_tick else "latest")
        overlap: Overlap = self.overlap or ("allow" if job.uses_tick else "skip")
        return ScheduleSpec(
            cadence=Cadence(cron=self.cron, every=self.every, zone=self.zone),
            job=job,
            overlap=overlap,
            catch_up=CatchUp(self.catch_up.within, runs),
            jitter=self.jitter,
            pause_after_failures=self.pause_after_failures,
        )

    def _job(self) -> JobSpec:
        job = self.job.spec(0.0)
        if "zone" not in self.job.model_fields_set:
            job = replace(job, zone=self.zone)
        if job.uses_tick and job.files.min_files is None:
            # The file of a tick is expected: without it the cell is missing, not empty.
            job = replace(job, files=replace(job.files, min_files=1))
        return job


class NewSchedule(ScheduleBody):
    """A schedule, with an id of the caller's choice: the same id with the same body is the same schedule."""

    schedule_id: ScheduleId | None = None


class PauseBody(Input):
    """Why the schedule is paused."""

    note: Annotated[str, Field(max_length=500), *matching(r"^[^\x00]*\Z", "must not hold a NUL")] = ""


class BackfillBody(Input):
    """The span of the ticks that are made up for; both instants are included."""

    model_config = ConfigDict(populate_by_name=True, json_schema_extra={"examples": [examples.BACKFILL]})

    since: Annotated[Moment, Field(alias="from")]
    until: Annotated[Moment, Field(alias="to")]


class HowMany(Input):
    """How many ticks to show."""

    count: Annotated[int, Field(ge=1, le=MAX_PREVIEW)] = 10


class Trial(Input):
    """`dry_run` makes every check, and stores nothing."""

    dry_run: bool = False


class Span(Paged):
    """Nominal instants, both included."""

    since: Annotated[Moment | None, Field(alias="from")] = None
    until: Annotated[Moment | None, Field(alias="to")] = None


class WhichRuns(Span):
    """Filters of the list of runs; all that are given must match."""

    status: RunStatus | None = None
    kind: RunKind | None = None


class WhichCells(Span):
    """A span of ticks, by default the last thirty days; with `state`, only clients that have such a cell in it."""

    state: CellState | None = None
