"""What a verb on a job means for its uploads, in the transaction of the verb.

Rule: called with the job before and after; a verb that changes nothing has no effect.
"""

from control_plane.domain.jobs.model import ExecutionState, Job
from control_plane.domain.uploads.events import DeadlineMoved
from control_plane.domain.uploads.machine import apply
from control_plane.domain.uploads.model import TERMINAL, UploadKey
from control_plane.services.gate.keeper import release_job
from control_plane.services.ports.database import Records
from control_plane.services.ports.jobs import ExecutionFilter


def carry_over(records: Records, before: Job, after: Job, now: float) -> None:
    """Ask the gate again for what it holds, and move the deadlines of open uploads with the job's."""
    if before is after:
        return
    if after.open and (before.paused != after.paused or before.spec is not after.spec):
        release_job(records, after.job_id, now)
    if before.deadline != after.deadline:
        _move_deadlines(records, after, now)


def _move_deadlines(records: Records, job: Job, now: float) -> None:
    sending = records.jobs.executions.matching(ExecutionFilter(job.job_id, frozenset({ExecutionState.UPLOADING})))
    for files in records.jobs.files.open(one.key for one in sending).values():
        for file in files:
            upload = records.uploads.get(UploadKey(file.client_id, file.upload_id or ""))
            if upload is None or upload.state in TERMINAL:
                continue
            moved, _ = apply(upload, DeadlineMoved(now=now, deadline=job.deadline))
            if moved is not upload:
                records.uploads.save(upload, moved)
