"""What a verb on a job means for its uploads, in the transaction of the verb.

Rule: called with the job before and after; a verb that changes nothing has no effect.
"""

from control_plane.domain.jobs.model import ExecutionState, Job
from control_plane.domain.uploads.model import TERMINAL, UploadKey
from control_plane.services.gate.keeper import release_job
from control_plane.services.ports.database import Records
from control_plane.services.ports.jobs import ExecutionFilter
from control_plane.services.uploads.writer import UploadWriter


def carry_over(records: Records, writer: UploadWriter, before: Job, after: Job, now: float) -> None:
    """Ask the gate again for what it holds, and move the deadlines of open uploads with the job's."""
    if before is after:
        return
    if after.open and (before.paused != after.paused or before.spec is not after.spec):
        release_job(records, after.job_id, now)
    if before.deadline != after.deadline:
        _move_deadlines(records, writer, after, now)


def _move_deadlines(records: Records, writer: UploadWriter, job: Job, now: float) -> None:
    sending = records.jobs.executions.matching(ExecutionFilter(job.job_id, frozenset({ExecutionState.UPLOADING})))
    for files in records.jobs.files.open(one.key for one in sending).values():
        for file in files:
            upload = records.uploads.get(UploadKey(file.client_id, file.upload_id or ""))
            if upload is not None and upload.state not in TERMINAL:
                writer.move_deadline(records, upload, job.deadline, now)
