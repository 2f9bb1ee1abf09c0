"""What schedules need of jobs, by the functions of jobs.

Rule: the only module of schedules that names them; each runs in the caller's transaction.
"""

from collections.abc import Sequence
from typing import Final

from control_plane.domain.jobs.events import JobCancelRequested
from control_plane.domain.jobs.model import JobState
from control_plane.domain.jobs.spec import JobSpec
from control_plane.services.jobs.acts import apply_job
from control_plane.services.jobs.checks import check_new
from control_plane.services.jobs.creation import create_job
from control_plane.services.ports.database import Records
from control_plane.services.schedules.advance import JobMachine


def cancel_job(records: Records, job_id: str, now: float) -> None:
    """Cancel a job of a schedule that ticks again; one that is over, or is being cancelled, stays as it is."""
    job = records.jobs.get(job_id)
    if job is not None and job.open and job.state is not JobState.CANCELLING:
        apply_job(records, job, JobCancelRequested(now=now, by="its schedule"))


def check_job(records: Records, spec: JobSpec, now: float) -> Sequence[str]:
    """Make every check of a schedule's job; warnings. Raises what its creation would."""
    clients, warnings = check_new(records, "job", spec, now, scheduled=True)
    return warnings if clients else ("targets: no client matches now", *warnings)


MACHINE: Final = JobMachine(create_job, cancel_job)
