"""What schedules need of jobs, by the functions of jobs.

Rule: the only module of schedules that names them; each runs in the caller's transaction.
"""

from collections.abc import Sequence

from control_plane.domain.jobs.events import JobCancelRequested
from control_plane.domain.jobs.model import JobState
from control_plane.domain.jobs.spec import JobSpec
from control_plane.services.jobs.checks import check_new
from control_plane.services.jobs.creation import create_job
from control_plane.services.jobs.turn import JobTools, JobTurn
from control_plane.services.ports.database import Records
from control_plane.services.schedules.advance import JobMachine


def job_machine(tools: JobTools) -> JobMachine:
    """How schedules make jobs, and cancel them, with the tools of their turns."""

    def cancel(records: Records, job_id: str, now: float) -> None:
        job = records.jobs.get(job_id)
        if job is None or not job.open or job.state is JobState.CANCELLING:
            return
        turn = JobTurn(records, tools, now)
        turn.take_job(job)
        turn.apply_to_job(job_id, JobCancelRequested(now=now, by="its schedule"))
        turn.finish()

    return JobMachine(create_job, cancel)


def check_job(records: Records, spec: JobSpec, now: float) -> Sequence[str]:
    """Make every check of a schedule's job; warnings. Raises what its creation would."""
    clients, warnings = check_new(records, "job", spec, now, scheduled=True)
    return warnings if clients else ("targets: no client matches now", *warnings)
