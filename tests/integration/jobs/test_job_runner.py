"""Jobs end to end over fakes: requests, pages, uploads, ends.

Rule: only the test moves the clock; the sums of a job are compared with its rows at each commit.
"""

from control_plane.domain.jobs.model import FileOutcome, JobOutcome, JobState
from tests.support.job_rig import Device, JobRig


async def test_a_job_lists_and_sends_the_files_of_every_client() -> None:
    devices = [Device("a", ("/data/a.log", "/data/b.log")), Device("b")]
    async with JobRig(devices) as rig:
        rig.check_at_every_commit()
        await rig.connect()
        await rig.create()
        assert await rig.states() == {"a": "succeeded", "b": "succeeded"}
        job = await rig.job()
        assert (job.state, job.outcome) == (JobState.COMPLETED, JobOutcome.ALL)
        assert [file.outcome for file in await rig.files("a")] == [FileOutcome.PROVEN] * 2
        assert sorted(rig.objects.objects) == [
            "uploads/job/a/data/a.log",
            "uploads/job/a/data/b.log",
            "uploads/job/b/data/a.log",
        ]
