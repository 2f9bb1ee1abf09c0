"""What schedules need of jobs, by the functions of jobs.

Rule: the only module of schedules that names them; each runs in the caller's transaction.
"""

from collections.abc import Sequence
from functools import partial
from itertools import islice, takewhile
from typing import Final

from control_plane.domain.gate.devices import LONGEST_PERIOD
from control_plane.domain.gate.forecast import Forecast
from control_plane.domain.jobs.events import JobCancelRequested
from control_plane.domain.jobs.four_eyes import FourEyes
from control_plane.domain.jobs.machine import apply_to_job
from control_plane.domain.jobs.model import JobState
from control_plane.domain.jobs.spec import JobSpec
from control_plane.domain.schedules.model import Schedule
from control_plane.domain.schedules.ticks import ticks
from control_plane.services.jobs.checks import check_new
from control_plane.services.jobs.creation import create_job
from control_plane.services.jobs.forecast import forecast_of
from control_plane.services.jobs.turn import job_changed
from control_plane.services.ports.database import Records
from control_plane.services.schedules.advance import JobMachine

MAX_TICKS: Final = 1_000
"""Ticks of one forecast, the next ones."""


def cancel_job(records: Records, job_id: str, now: float) -> None:
    """Cancel a job of a schedule that ticks again; one that is over, or is being cancelled, stays as it is."""
    job = records.jobs.get(job_id)
    if job is not None and job.open and job.state is not JobState.CANCELLING:
        after = records.jobs.save(job, apply_to_job(job, JobCancelRequested(now=now, by="its schedule")))
        records.changes.append([job_changed(job, after, now)])


def check_job(records: Records, spec: JobSpec, now: float) -> tuple[Sequence[str], Sequence[str]]:
    """Make every check of a schedule's job: the clients that match now, and warnings; raises what a creation would."""
    clients, warnings = check_new(records, "job", spec, now, scheduled=True)
    return clients, warnings if clients else ("targets: no client matches now", *warnings)


def forecast_job(records: Records, schedule: Schedule, clients: Sequence[str], now: float) -> Forecast | None:
    """What the clients with caps are expected to send at the ticks of the next month."""
    spec = schedule.spec
    coming = takewhile(lambda at: at < now + LONGEST_PERIOD, islice(ticks(spec.cadence, now), MAX_TICKS))
    return forecast_of(records, spec.job, clients, now, schedule_id=schedule.schedule_id, ticks=list(coming))


def machine(four_eyes: FourEyes) -> JobMachine:
    """What makes and cancels the jobs of schedules, under this policy."""
    return JobMachine(partial(create_job, four_eyes=four_eyes), cancel_job)
