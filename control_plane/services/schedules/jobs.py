"""What schedules need of jobs, by the functions of jobs.

Rule: the only module of schedules that names them; each runs in the caller's transaction.
"""

from collections.abc import Sequence
from typing import Final

from control_plane.domain.jobs.events import JobCancelRequested
from control_plane.domain.jobs.machine import apply_to_job
from control_plane.domain.jobs.model import JobState
from control_plane.domain.jobs.spec import JobSpec
from control_plane.services.jobs.checks import check_new
from control_plane.services.jobs.creation import create_job
from control_plane.services.jobs.turn import job_changed
from control_plane.services.ports.database import Records
from control_plane.services.schedules.advance import JobMachine


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


MACHINE: Final = JobMachine(create_job, cancel_job)
