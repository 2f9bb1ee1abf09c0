"""Jobs, clients and uploads for tests of the gate.

Rule: a test names only what it is about.
"""

from typing import Any

from msgspec.structs import replace

from control_plane.domain.jobs.model import Execution, Job, JobState
from control_plane.domain.jobs.spec import FileQuery, JobSpec, Rollout, Targets
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.gate.keeper import GateKeeper
from control_plane.services.ports.database import Records
from control_plane.services.uploads.quota import Quota
from schemas.parts import MIB
from schemas.values import WantedPart
from tests.support.databases import a_client, an_upload

OWNER = "control-plane"
START = 1_761_999_896.0
SPEC = JobSpec(targets=Targets(clients=("*",)), files=FileQuery(paths=("/var/log/*.log",)))


def a_keeper(max_uploads: int = 1_000, max_bytes: int | None = None) -> GateKeeper:
    """A replica's gate."""
    return GateKeeper(Quota(max_uploads, max_bytes), OWNER)


def a_job(job_id: str = "job-1", *, rollout: Rollout | None = None, **changes: Any) -> Job:  # noqa: ANN401 - any field
    """A running job of 100 clients; fields of its specification go to the specification."""
    of_spec = {
        name: changes.pop(name) for name in list(changes) if name in JobSpec.__struct_fields__ and name != "deadline"
    }
    spec = replace(SPEC, rollout=rollout or Rollout(), **of_spec)
    fields: dict[str, Any] = {"created_at": START, "deadline": START + 1e6, "clients": 100, **changes}
    return Job(job_id=job_id, spec=spec, **fields)


def an_execution(number: int = 1, job_id: str = "job-1", **changes: Any) -> Execution:  # noqa: ANN401 - any field
    """A queued execution."""
    fields: dict[str, Any] = {"place": 0.5, "created_at": START, "updated_at": START, "due_at": START, **changes}
    return Execution(job_id=job_id, client_id=f"client-{number}", **fields)


def a_request(client_id: str = "client-1", *, parts: int = 3, **changes: Any) -> Upload:  # noqa: ANN401 - any field
    """An upload whose client wants so many parts of 5 MiB."""
    wanted = tuple(WantedPart(number, 5 * MIB) for number in range(1, parts + 1))
    fields: dict[str, Any] = {
        "state": State.IN_PROGRESS,
        "s3_upload_id": "s3-1",
        "file_size": parts * 5 * MIB,
        "part_size": 5 * MIB,
        "wanted": wanted,
        "sequence": 1,
        "deadline": START + 1e6,
        **changes,
    }
    return an_upload(client_id, **fields)


def add_client(records: Records, client_id: str, **labels: str) -> None:
    """A client that is online and has these labels."""
    records.clients.save([a_client(client_id, labels=labels)])


def set_state(records: Records, job_id: str, state: JobState) -> None:
    """An operator pauses or resumes the job."""
    job = records.jobs.get(job_id)
    assert job is not None
    records.jobs.save(job, replace(job, state=state))
