"""The spans of an upload: their names, their attributes, and those that the control plane makes for the device.

Rule: the one home of span names: the conventions for messaging are experimental, and change here. A device has no SDK:
it echoes the `traceparent` of a command, and its span lasts from that command to its response. A context that a device
sends counts only if it belongs to the trace of its own upload.
"""

import asyncio
import re
from collections import OrderedDict
from contextlib import AbstractContextManager
from typing import Final

from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import Upload, UploadKey
from control_plane.services.errors import ServiceError
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database
from control_plane.services.ports.tracing import Attributes, NoTraces, Tracer
from schemas.messages import Response, UploadReport
from schemas.names import TRACEPARENT_PATTERN
from schemas.topics import Channel, Topics

NO_TRACES: Final[Tracer] = NoTraces()

MAX_REMEMBERED: Final = 10_000
"""Commands whose instant is remembered, so that the device's span begins there."""

MAX_AT_ONCE: Final = 100
"""Responses whose span is being made; more are left out: a trace is no record."""

_TRACEPARENT: Final = re.compile(TRACEPARENT_PATTERN)
_NAMES: Final = {
    Kind.SEND_DOWNLOAD: "command download_file",
    Kind.SEND_GRANT: "command grant_parts",
    Kind.SEND_CANCEL: "command cancel_upload",
    Kind.SEND_CLOSE: "command close_upload",
    Kind.CREATE_MULTIPART: "store create_multipart",
    Kind.COMPLETE: "store complete",
    Kind.ABORT_MULTIPART: "store abort_multipart",
    Kind.DELETE_OBJECT: "store delete_object",
    Kind.RECEIPT: "store receipt",
}
_PROOF: Final = "store head"
_JOB_UPLOAD: Final = "job upload"


def trace_id_of(traceparent: str | None) -> str | None:
    """The 32 digits of the trace; None for a text that is no context."""
    return traceparent.split("-")[1] if traceparent is not None and _TRACEPARENT.match(traceparent) else None


def job_and_trace(upload: Upload) -> dict[str, str]:
    """The facts of a log line beside the ids of client and upload: the job and the trace, where there are any."""
    trace_id = trace_id_of(upload.traceparent)
    found = {"job_id": upload.job_id, "trace_id": trace_id}
    return {name: value for name, value in found.items() if value is not None}


def job_trace(tracer: Tracer, job_id: str, client_id: str, upload_id: str) -> str | None:
    """Begin the trace of an upload that a job makes: no request waits for it."""
    if not tracer.enabled:
        return None
    facts = {"backhaul.job_id": job_id, "backhaul.client_id": client_id, "backhaul.upload_id": upload_id}
    return tracer.root(_JOB_UPLOAD, facts)


def duty_span(tracer: Tracer, upload: Upload, kind: Kind) -> AbstractContextManager[None]:
    """The span around one duty of a traced upload."""
    return _of_upload(tracer, upload, _NAMES[kind])


def proof_span(tracer: Tracer, upload: Upload) -> AbstractContextManager[None]:
    """The span around the look at the object of a success."""
    return _of_upload(tracer, upload, _PROOF)


def _of_upload(tracer: Tracer, upload: Upload, name: str) -> AbstractContextManager[None]:
    if upload.traceparent is None or not tracer.enabled:
        return NO_TRACES.span(name, None, {})
    facts: dict[str, str | int] = {
        "backhaul.upload_id": upload.upload_id,
        "backhaul.client_id": upload.client_id,
        "backhaul.attempt": upload.attempt,
    }
    if upload.job_id is not None:
        facts["backhaul.job_id"] = upload.job_id
    return tracer.span(name, upload.traceparent, facts)


def publish_span(tracer: Tracer, topics: Topics, client_id: str, size: int) -> AbstractContextManager[None]:
    """The span around the publication of a command, inside the span of its duty (conventions for messaging, MQTT)."""
    if tracer.current() is None:
        return NO_TRACES.span("", None, {})
    template = topics.every(Channel.COMMAND).replace("+", "{client_id}")
    facts: Attributes = {
        "messaging.system": "mqtt",
        "messaging.operation.type": "send",
        "messaging.operation.name": "publish",
        "messaging.destination.name": topics.of(client_id, Channel.COMMAND),
        "messaging.destination.template": template,
        "messaging.message.body.size": size,
    }
    return tracer.span(f"publish {template}", None, facts)


class DeviceSpans:
    """Makes the spans of devices from what they reported."""

    def __init__(self, tracer: Tracer, database: Database, clock: Clock) -> None:
        self._tracer = tracer
        self._database = database
        self._clock = clock
        self._published: OrderedDict[str, float] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def published(self, traceparent: str) -> None:
        """A command with this context is about to be published."""
        self._published[traceparent] = self._clock.now()
        if len(self._published) > MAX_REMEMBERED:
            self._published.popitem(last=False)

    def responded(self, key: UploadKey, traceparent: str | None, response: Response) -> None:
        """A device responded, and echoed `traceparent`; never waits."""
        if not self._tracer.enabled or trace_id_of(traceparent) is None or len(self._tasks) >= MAX_AT_ONCE:
            return
        task = asyncio.create_task(self._make(key, traceparent or "", response, self._clock.now()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, key: UploadKey, traceparent: str, response: Response, now: float) -> None:
        try:
            upload = await self._database.read(lambda records: records.uploads.get(key))
        except ServiceError:
            return
        if upload is None or trace_id_of(upload.traceparent) != trace_id_of(traceparent):
            return
        # Another replica, or an earlier process, published the command: then only its end is known.
        began_at = self._published.get(traceparent, now)
        facts: dict[str, str | int] = {
            "backhaul.upload_id": key.upload_id,
            "backhaul.client_id": key.client_id,
            "backhaul.status": str(response.status),
        }
        report = response.payload
        if isinstance(report, UploadReport):
            facts |= {"backhaul.attempt": report.attempt, "backhaul.wanted_parts": len(report.wanted_parts)}
            facts |= {"backhaul.stored_parts": len(report.etags or {})}
        if response.error is not None:
            facts["error.type"] = str(response.error)
        self._tracer.ended(f"device {response.action}", traceparent, began_at, now, facts)
