"""What a job sends to a client: the request for its files, and the upload of each.

Rule: everything follows from the stored rows and the time. A request is never stored, and a repeat of it has one name.
"""

import functools
import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from control_plane.domain.clients import Client
from control_plane.domain.jobs.keys import KeyFacts, Template
from control_plane.domain.jobs.model import SELECTION_PAGE, Execution, Job, JobFile, upload_id_of
from control_plane.domain.uploads.model import MAX_DEADLINE, ListedFile, Origin, Upload
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import Policy, class_of
from control_plane.services.ports.tracing import Tracer
from control_plane.services.tracing import NO_TRACES, job_trace
from schemas.messages import MAX_SELECTED, Command, SelectFiles
from schemas.sealing.layout import sealed_name
from schemas.values import Action, Pick

_template: Final = functools.lru_cache(256)(Template.parse)


@functools.lru_cache(256)
def _paths(paths: tuple[str, ...], job_id: str, tick_at: float, zone: str) -> tuple[str, ...]:
    facts = KeyFacts(job=job_id, tick_at=tick_at, zone=zone)
    return tuple(_template(path).fill(facts) for path in paths)


def request_id(execution: Execution) -> str:
    """The id of the request for the next page: its answer, even a refusal, names the execution and its attempt."""
    name = f"{execution.job_id}\0{execution.client_id}\0{execution.attempt}"
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return f"select.{digest}.{execution.next_index or 0}"


def build_select_files(job: Job, execution: Execution, now: float) -> Command:
    """Request the next page of the selection. Ages count from the tick: the time since then is added to them."""
    query = job.spec.files
    since = max(0.0, now - job.tick_at)
    drops_some = query.skip == "unchanged" or query.max_bytes is not None
    payload = SelectFiles(
        job_id=job.job_id,
        paths=_paths(query.paths, job.job_id, job.tick_at, job.spec.zone),
        exclude=query.exclude,
        type=query.type,
        newer_than=None if query.newer_than is None else query.newer_than + since,
        older_than=None if query.older_than is None else query.older_than + since,
        min_size=query.min_size,
        max_size=query.max_size,
        pick=Pick(query.pick),
        max_files=MAX_SELECTED if drops_some else min(query.max_files, MAX_SELECTED),
        selection=execution.selection,
        offset=execution.next_index or 0,
        limit=SELECTION_PAGE,
    )
    return Command(message_id=request_id(execution), action=Action.SELECT_FILES, payload=payload)


@dataclass(frozen=True, slots=True)
class UploadPlanner:
    """Makes the upload of a file; `policy` and `probe` as for a trigger."""

    policy: Policy
    probe: ObjectStoreProbe
    tracer: Tracer = NO_TRACES

    def plan(self, job: Job, file: JobFile, client: Client, now: float, *, marked: bool = False) -> Upload:
        """A new upload of `file`. `marked`: its plain key is taken. `BadKey` when no object may have its key."""
        upload_id = upload_id_of(file.job_id, file.client_id, file.n, file.attempt, now)
        spec, policy = job.spec, self.policy
        facts = KeyFacts(
            job=job.job_id,
            client_id=client.client_id,
            path=file.path,
            schedule=job.schedule_id or "",
            labels=client.effective_labels,
            tick_at=job.tick_at,
            zone=spec.zone,
        )
        key = self._taken(sealed_name(_template(spec.key).expand(facts), spec.options))
        if marked:
            folder, slash, name = key.rpartition("/")
            key = f"{folder}{slash}{upload_id[:8]}-{name}"
        base = policy.base_path.strip("/")
        options = spec.options
        if spec.priority and not options.priority:
            options = replace(options, priority=spec.priority)
        return Upload(
            client_id=file.client_id,
            upload_id=upload_id,
            owner=policy.owner,
            origin=Origin.REST,
            s3_key=f"{base}/{key}" if base else key,
            token=secrets.token_hex(16),
            created_at=now,
            updated_at=now,
            deadline=min(job.deadline, now + MAX_DEADLINE),
            file_path=file.path,
            digest=self.probe.capabilities.digest_for(policy.digest),
            chunk_size=policy.chunk_size,
            options=options,
            metadata=spec.metadata,
            after=spec.after,
            touched_at=now,
            job_id=job.job_id,
            job_file=file.n,
            listed=None if spec.approval.mode == "never" else ListedFile(file.size, file.mtime_ns),
            traceparent=job_trace(self.tracer, job.job_id, client.client_id, upload_id),
        )

    def _taken(self, key: str) -> str:
        """The key with `_` for each character of a class that the object store refuses."""
        refused = self.probe.capabilities.refused_characters
        if not refused:
            return key
        return "".join("_" if letter != "/" and class_of(letter) in refused else letter for letter in key)
