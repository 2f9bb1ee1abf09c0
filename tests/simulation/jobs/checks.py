"""What must hold for jobs, checked at every commit and at every published command; the numbers are those of the design.

Rule: a check reads the rows and the models, never what a service reports. What breaks is kept in `breaches`, since the
code under test may catch it.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from control_plane.domain.jobs.model import EXECUTION_TERMINAL, JOB_TERMINAL, ExecutionState, JobState
from control_plane.domain.jobs.spec import JobSpec
from schemas.codec import decode_command
from schemas.errors import SchemaError
from schemas.messages import GrantParts
from tests.simulation.jobs.database import SharedDatabase
from tests.simulation.promises import FAULT_EVENTS, Broken
from tests.simulation.world import World

GRACE: Final = 1.0
"""Seconds after a pause in which a grant may still arrive at the broker that was decided before it."""

RUNNING: Final = (ExecutionState.LISTING, ExecutionState.UPLOADING)


class Row(NamedTuple):
    """An execution as it is stored."""

    state: str
    reason: str
    attempt: int
    place: float


class JobRow(NamedTuple):
    """A job as it is stored."""

    state: str
    clients: int
    deadline: float
    stage_below: float
    spec_version: int
    spec: str


@dataclass(slots=True)
class Begin:
    """When an execution began, by the true time."""

    at: float
    job_id: str
    client_id: str


class JobChecks:
    """The checks of one history."""

    def __init__(self, world: World, database: SharedDatabase) -> None:
        self._world = world
        self._database = database
        self.stride = 1
        """Checks run at every such commit; more than one for fleets whose rows take long to read."""
        self._commits = 0
        self.breaches: list[Broken] = []
        self.faults: list[str] = []
        self.retried: set[str] = set()
        """Jobs that an operator has asked to retry: their ended executions may begin again."""
        self.begins: list[Begin] = []
        self.granted: Counter[str] = Counter()
        self.rows: dict[tuple[str, str], Row] = {}
        self.jobs: dict[str, JobRow] = {}
        self._proven: dict[tuple[str, str, str], str] = {}
        self._specs: dict[tuple[str, int], JobSpec] = {}
        database.on_commit.append(self.committed)

    # --- what the simulator calls ---

    def committed(self) -> None:
        """After each commit."""
        self._commits += 1
        if self._commits % self.stride == 0:
            self.look()

    def look(self) -> None:
        """Read the rows, and compare them with what they were."""
        rows = {
            (job, client): Row(*rest)
            for job, client, *rest in self._database.rows(
                "SELECT job_id, client_id, state, reason_code, attempt, place FROM executions"
            )
        }
        jobs = {
            job: JobRow(*rest)
            for job, *rest in self._database.rows(
                "SELECT job_id, state, clients, deadline, stage_below, spec_version, spec FROM jobs"
            )
        }
        if rows != self.rows or jobs != self.jobs:
            self._roll_ups(rows, jobs)
            self._ends(rows)
            self._jobs(jobs)
            self._begins(rows, jobs)
            self.rows, self.jobs = rows, jobs
        self._files()

    def forget(self) -> None:
        """The database is another one: what is read next is not compared with what was."""
        self.rows, self.jobs = {}, {}
        self._proven.clear()
        self._specs.clear()
        self.look()

    def command_published(self, client_id: str, data: bytes) -> None:
        """10: while a job is paused, nothing is granted; what was decided before may still arrive."""
        try:
            payload = decode_command(data).payload
        except SchemaError:
            return
        if not isinstance(payload, GrantParts) or payload.about is None or not payload.urls:
            return
        self.granted[payload.about] += 1
        paused = self._database.rows(
            "SELECT job_id, held_since FROM jobs JOIN uploads USING (job_id)"
            " WHERE client_id = ? AND upload_id = ? AND jobs.state = 'paused'",
            client_id,
            payload.about,
        )
        for job_id, since in paused:
            late = self._world.wall() > since + GRACE
            self._require(not late, f"10: {payload.about} of the paused job {job_id} is granted")

    def logged(self, event: str, facts: Any) -> None:  # noqa: ANN401 - any facts of an event
        """No message and no duty meets a fault of the control plane."""
        if event in FAULT_EVENTS or (isinstance(facts, dict) and facts.get("fault")):
            self.faults.append(f"{event}: {facts!r}")

    # --- the checks ---

    def _roll_ups(self, rows: dict[tuple[str, str], Row], jobs: dict[str, JobRow]) -> None:
        """4: the counts are those of the rows. 9: a job has as many executions as clients that were accepted."""
        counted = Counter((job, row.state, row.reason) for (job, _), row in rows.items())
        stored = {
            (job, state, reason): n
            for job, state, reason, n in self._database.rows("SELECT job_id, state, reason_code, n FROM job_counts")
            if n
        }
        self._require(stored == dict(counted), f"4: the counts are {stored}, the executions {dict(counted)}")
        executions = Counter(job for job, _ in rows)
        for job_id, job in jobs.items():
            text = f"9: {job_id} has {executions[job_id]} executions for {job.clients} clients"
            self._require(job.clients == executions[job_id], text)
        missing = executions.keys() - jobs.keys()
        self._require(not missing, f"9: executions without a job: {sorted(missing)}")

    def _ends(self, rows: dict[tuple[str, str], Row]) -> None:
        """1: what ended does not begin again, unless a person asks or the client was removed and matches again."""
        for key, before in self.rows.items():
            after = rows.get(key)
            if after is None or before.state not in EXECUTION_TERMINAL or after.state == before.state:
                continue
            again = key[0] in self.retried or before.state == ExecutionState.REMOVED
            self._require(again, f"1: {key} had ended {before.state} and became {after.state}")

    def _jobs(self, jobs: dict[str, JobRow]) -> None:
        for job_id, job in jobs.items():
            before = self.jobs.get(job_id)
            if before is None or before.state == job.state:
                continue
            if before.state in JOB_TERMINAL:
                self._require(job_id in self.retried, f"1: the job {job_id} was {before.state} and became {job.state}")

    def _begins(self, rows: dict[tuple[str, str], Row], jobs: dict[str, JobRow]) -> None:
        """10: an execution begins only in a job that runs, in its stage, and under its cap."""
        begun = Counter[str]()
        for key, row in rows.items():
            before = self.rows.get(key)
            started = row.state in RUNNING and (before is None or before.state == ExecutionState.QUEUED)
            if not started:
                continue
            job_id, client_id = key
            job = jobs[job_id]
            begun[job_id] += 1
            self.begins.append(Begin(self._world.now(), job_id, client_id))
            was = self.jobs.get(job_id, job).state
            self._require(
                JobState.RUNNING in (was, job.state), f"10: {key} begins while the job is {was} and then {job.state}"
            )
            reach = max(job.stage_below, self.jobs.get(job_id, job).stage_below)
            self._require(row.place <= reach, f"10: {key} begins at {row.place} and its stage reaches {reach}")
        for job_id in begun:
            cap = self._spec(job_id, jobs[job_id]).rollout.max_running
            running = sum(1 for (job, _), row in rows.items() if job == job_id and row.state in RUNNING)
            self._require(cap is None or running <= cap, f"10: {running} executions of {job_id} run, {cap} may")

    def _files(self) -> None:
        """12: a file that was proven is not sent again in the same attempt. 6: no more files than the job allows."""
        for job_id, client_id, attempt, path, upload_id in self._database.rows(
            "SELECT job_id, client_id, attempt, path, upload_id FROM job_files WHERE outcome = 'proven'"
        ):
            known = self._proven.setdefault((job_id, client_id, f"{attempt} {path}"), upload_id)
            text = f"12: {path} of {client_id} in {job_id} is proven by {known} and by {upload_id}"
            self._require(known == upload_id, text)

    def _spec(self, job_id: str, job: JobRow) -> JobSpec:
        key = (job_id, job.spec_version)
        found = self._specs.get(key)
        if found is None:
            found = self._specs[key] = msgspec.json.decode(job.spec, type=JobSpec)
        return found

    def spec_of(self, job_id: str) -> JobSpec:
        """The job's request as it is stored now."""
        return self._spec(job_id, self.jobs[job_id])

    def _require(self, fine: object, text: str) -> None:
        if not fine:
            self.breaches.append(Broken(text))
