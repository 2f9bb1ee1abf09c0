"""From the domain's words to REST's: states, progress, instants.

Rule: pure functions; what is not known yet is null, never a guess.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from control_plane.api import models
from control_plane.domain.clients import Client
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.ports.object_store import ObjectStoreCapabilities
from control_plane.services.uploads.service import UploadView

STATUS: Final[Mapping[State, models.Status]] = {
    State.QUEUED: models.Status.QUEUED,
    State.DISPATCHED: models.Status.IN_PROGRESS,
    State.IN_PROGRESS: models.Status.IN_PROGRESS,
    State.COMPLETING: models.Status.IN_PROGRESS,
    State.COMPLETED: models.Status.COMPLETED,
    State.FAILED: models.Status.FAILED,
    State.REJECTED: models.Status.FAILED,
    State.CANCELLED: models.Status.CANCELLED,
    State.EXPIRED: models.Status.FAILED,
}
_END_OF_TIME: Final = 253_402_300_800.0
"""The first instant that no calendar has: the year 10000."""


def instant(at: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC, to the millisecond; None for what never comes.

    >>> instant(1761991200.25)
    '2025-11-01T10:00:00.250Z'
    """
    return None if at is None or at >= _END_OF_TIME else known_instant(at)


def known_instant(at: float) -> str:
    """`instant` of something that did happen."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def states_of(status: models.Status | None, state: State | None) -> frozenset[State] | None:
    """The states that match both; None when neither is asked for."""
    if status is None and state is None:
        return None
    return frozenset(one for one in State if status in (None, STATUS[one]) and state in (None, one))


def bytes_uploaded(upload: Upload) -> int:
    """What is certainly in the store, or by the client's word on its way there, whichever is more."""
    plan = upload.plan
    if plan is None or upload.file_size is None:
        return 0
    if upload.state is State.COMPLETED:
        return upload.file_size
    # A row from a list may hold thousands of parts: all but the last have one size, so counting them is enough.
    stored = [number for number, part in upload.parts.items() if part.stored and 1 <= number <= plan.total]
    missing_from_last = plan.part_size * plan.total - upload.file_size if plan.total in stored else 0
    return max(len(stored) * plan.part_size - missing_from_last, min(upload.bytes_sent, upload.file_size))


def progress(upload: Upload) -> float:
    """0 to 100 by bytes, rounded down: 100 means that everything is there."""
    if upload.state is State.COMPLETED:
        return 100.0
    return math.floor(1000 * bytes_uploaded(upload) / upload.file_size) / 10 if upload.file_size else 0.0


def completed_parts(upload: Upload) -> int:
    """Parts known to be stored; all of them once the object is."""
    plan = upload.plan
    if plan is not None and upload.state is State.COMPLETED:
        return plan.total
    return sum(part.stored for part in upload.parts.values())


def shown(view: UploadView) -> models.Upload:
    """One upload."""
    upload = view.upload
    return models.Upload(
        upload_id=upload.upload_id,
        client_id=upload.client_id,
        file_path=upload.file_path,
        s3_key=upload.s3_key,
        status=STATUS[upload.state],
        state=upload.state,
        progress=progress(upload),
        completed_parts=completed_parts(upload),
        total_parts=None if upload.plan is None else upload.plan.total,
        bytes_uploaded=bytes_uploaded(upload),
        file_size=upload.file_size,
        attempt=upload.attempt,
        proof=upload.proof,
        reason=view.reason,
        next_wake_at=instant(view.next_wake_at),
        error=upload.error,
        message=upload.message,
        metadata=dict(upload.metadata),
        origin=upload.origin,
        created_at=known_instant(upload.created_at),
        updated_at=known_instant(upload.updated_at),
        completed_at=instant(upload.completed_at),
    )


def client_status(client: Client, view: UploadView | None, now: float) -> models.ClientStatus:
    """One client, and what it is doing."""
    return models.ClientStatus(
        client_id=client.client_id,
        connected=client.connected(now),
        connected_at=instant(client.connected_at),
        last_heartbeat=instant(client.seen_at),
        current_upload=None if view is None else _current(view.upload),
    )


def client_row(client: Client, now: float) -> models.ClientRow:
    """One client in a list."""
    return models.ClientRow(
        client_id=client.client_id,
        connected=client.connected(now),
        last_activity=instant(client.seen_at),
        labels=dict(client.labels),
    )


def client(known: Client, now: float) -> models.Client:
    """One client in full."""
    agent, waits = known.agent, known.waiting_for(now)
    return models.Client(
        **client_row(known, now).model_dump(),
        connected_at=instant(known.connected_at),
        install_id=known.install_id,
        agent=models.Agent(
            version=agent.version,
            protocol=list(agent.protocol),
            hostname=agent.hostname,
            os=agent.os,
            arch=agent.arch,
        ),
        supported=known.supported,
        capabilities=list(known.capabilities),
        default_file=known.default_file,
        reason=None if waits is None else waits.text,
    )


def probe(seen: ObjectStoreCapabilities) -> models.Probe:
    """What the store was seen to do."""
    return models.Probe(
        part_digests=sorted(seen.part_digests),
        object_digests=sorted(seen.object_digests),
        etag_is_md5=seen.etag_is_md5,
        if_none_match=seen.if_none_match,
        encrypts=seen.encrypts,
        clock_skew=seen.clock_skew,
        notes=list(seen.notes),
    )


def _current(upload: Upload) -> models.CurrentUpload:
    return models.CurrentUpload(
        upload_id=upload.upload_id,
        file_path=upload.file_path,
        status=STATUS[upload.state],
        progress=progress(upload),
    )
