"""The promises of reliability.md section 1, checked during a history and at its end.

Rule: a promise is checked against the state of the models, never against what the system reports.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from control_plane.adapters.memory.records import Tables
from control_plane.domain.clients import Client
from control_plane.domain.uploads.model import OPEN, TERMINAL, State, Upload, UploadKey
from device_agent.state.journal import Journal
from schemas.codec import decode_command, decode_response
from schemas.errors import SchemaError
from schemas.messages import DownloadFile, GrantParts, UploadReport
from tests.simulation.bucket import Bucket
from tests.simulation.contents import clip, size_of

if TYPE_CHECKING:
    from tests.simulation.device import Device

FAULT_EVENTS: Final = frozenset({"duty.fault", "message.fault"})


class Broken(AssertionError):
    """A promise does not hold; the text names it."""


def require(fine: object, text: str) -> None:
    """`Broken` when a promise does not hold."""
    if not fine:
        raise Broken(text)


class DevicePromises:
    """P5 and P9 on one device: no stored part is sent again, nothing is published that a crash could undo."""

    def __init__(self, device: "Device") -> None:
        self._device = device
        self._answered: list[tuple[str, int]] = []
        self._kept: set[tuple[str, int]] = set()

    def put_begins(self, place: str, number: int) -> None:
        """P5: a part whose etag the journal holds is never sent again to the same place."""
        require((place, number) not in self._kept, f"P5: part {number} of {place} is journalled and is sent again")

    def stored(self, place: str, number: int) -> None:
        """The object store's answer has reached the agent."""
        self._answered.append((place, number))

    def turned(self, journal: Journal) -> None:
        """After a turn of the agent's loop the answers are in the journal, unless the disk is full."""
        if self._answered and not journal.pending:
            self._kept.update(self._answered)
            self._answered.clear()

    def crashed(self) -> None:
        """Answers that were not in the journal are lost; their parts may be sent again."""
        self._answered.clear()

    def forget(self) -> None:
        """The disk is empty: every part may be sent again."""
        self._kept.clear()

    def response_published(self, data: bytes) -> None:
        """P9: every reported etag that is not acknowledged yet is durable."""
        report, process = decode_response(data).payload, self._device.process
        if process is None or not isinstance(report, UploadReport):
            return
        run = process.agent.uploads.get(report.upload_id or "")
        waiting = {} if run is None or run.transfer.order.attempt != report.attempt else run.transfer.kept
        for number, etag in report.etags.items():
            durable = number not in waiting or self._device.disk.durable(etag.strip('"').encode())
            require(durable, f"P9: the etag of part {number} is reported before it is durable")

    def command_acknowledged(self, data: bytes) -> None:
        """P9: a command that begins an upload is durable before its PUBACK."""
        process = self._device.process
        try:
            payload = decode_command(data).payload
        except SchemaError:
            return
        if process is None or not isinstance(payload, DownloadFile) or payload.about is None:
            return
        run = process.agent.uploads.get(payload.about)
        if run is not None and run.transfer.order.attempt == payload.about_attempt:
            # The upload id would not do: an earlier attempt has written it.
            durable = self._device.disk.durable(run.transfer.order.message_id.encode())
            require(durable, f"P9: the command for {payload.about} is acknowledged before it is durable")


class PlanePromises:
    """P3, P8, P9 and final states, checked at every commit and every published command of a control plane."""

    def __init__(self, tables: Tables, bucket: Bucket) -> None:
        self._tables = tables
        self._bucket = bucket
        self._ends: dict[UploadKey, Upload] = {}
        self._pairs: dict[str, tuple[str, int, int]] = {}
        self._retired: set[tuple[str, str]] = set()
        self.breaches: list[Broken] = []
        """Promises that broke inside code that catches every exception."""
        self.faults: list[str] = []

    def committed(self) -> None:
        """After every write: success is true, terminal states are final, presence never goes back."""
        for key, upload in self._tables.uploads.items():
            end = self._ends.get(key)
            if end is not None:
                self._require(upload.state is end.state, f"{key} was {end.state} and became {upload.state}")
            elif upload.state in TERMINAL:
                self._ends[key] = upload
                self._require_object(upload)
        for client_id, client in self._tables.clients.items():
            self._require_newer_presence(client_id, (client.install_id, client.epoch, client.sequence))

    def _require_object(self, upload: Upload) -> None:
        """The object of a completed upload exists at that moment: of this attempt, and of the file's size."""
        if upload.state is not State.COMPLETED or upload.owner != "control-plane":
            return
        found = self._bucket.objects.get(upload.s3_key)
        self._require(found, f"P3: completed {upload.upload_id} has no object")
        if found is not None:
            same = (found.token, size_of(found.content)) == (upload.object_token, upload.file_size)
            self._require(same, f"P3: the object of completed {upload.upload_id} is of another attempt or size")

    def _require_newer_presence(self, client_id: str, pair: tuple[str, int, int]) -> None:
        known = self._pairs.get(client_id)
        if known == pair:
            return
        if known is not None and known[0] == pair[0]:
            self._require(
                pair[1:] > known[1:], f"P8: the presence of {client_id} went from {known[1:]} back to {pair[1:]}"
            )
        elif known is not None:
            self._retired.add((client_id, known[0]))
            self._require(
                (client_id, pair[0]) not in self._retired, f"P8: a retired installation of {client_id} came back"
            )
        self._pairs[client_id] = pair

    def command_published(self, client_id: str, data: bytes) -> None:
        """P9: no sequence is acknowledged to a device before it is committed."""
        payload = decode_command(data).payload
        if isinstance(payload, GrantParts | DownloadFile) and payload.about is not None:
            upload = self._tables.uploads.get(UploadKey(client_id, payload.about))
            committed = upload is not None and (
                upload.attempt > payload.about_attempt or upload.sequence >= payload.acknowledges
            )
            self._require(committed, f"P9: {payload.acknowledges} of {payload.about} is acknowledged and not committed")

    def _require(self, fine: object, text: str) -> None:
        if not fine:
            self.breaches.append(Broken(text))
            raise self.breaches[0]

    def logged(self, event: str, facts: Any) -> None:  # noqa: ANN401 - any facts of an event
        """P13: no message and no duty meets a fault of the control plane."""
        if event in FAULT_EVENTS:
            self.faults.append(f"{event}: {msgspec.json.encode(facts).decode()}")


def check_objects(uploads: dict[UploadKey, Upload], bucket: Bucket, devices: "dict[str, Device]") -> None:
    """P2, P3, P4: one object for each completed upload, none for any other, with the bytes of the file."""
    for upload in uploads.values():
        if upload.owner != "control-plane":
            continue
        births = [(key, token) for key, token in bucket.born if token.startswith(upload.token)]
        there = {key: one for key, one in bucket.objects.items() if one.token.startswith(upload.token)}
        whole = [token for _, token in births]
        require(len(set(whole)) == len(whole), f"P2: attempts of {upload.upload_id} appeared twice: {births}")
        keys = [key for key, _ in births]
        require(len(set(keys)) == len(keys), f"P2: two attempts of {upload.upload_id} appeared under one key: {births}")
        if upload.state is not State.COMPLETED:
            require(not there, f"P2: {upload.state} upload {upload.upload_id} left objects {sorted(there)}")
            continue
        require(list(there) == [upload.s3_key], f"P2: completed {upload.upload_id} has objects {sorted(there)}")
        found = there[upload.s3_key]
        require(found.token == upload.object_token, f"P3: the object of {upload.upload_id} is of another attempt")
        versions = devices[upload.client_id].files.versions.get(upload.file_path or "", [])
        if upload.options.on_change == "prefix":
            versions = [clip(one, 0, upload.file_size or 0) for one in versions]
        require(size_of(found.content) == upload.file_size, f"P3: the object of {upload.upload_id} has another size")
        require(found.content in versions, f"P4: the object of {upload.upload_id} is no version of its file")


def unfinished(
    tables: Tables, bucket: Bucket, devices: "dict[str, Device]", connected: Callable[[Client], bool]
) -> list[str]:
    """P6, P15 and presence: all that has not ended yet; empty at the end of the calm.

    `connected` tells whether every control plane counts the client of a row as connected.
    """
    left = [f"{key.upload_id} is {one.state}" for key, one in tables.uploads.items() if one.state in OPEN]
    left += [
        f"outbox: {entry.duty.kind} of {subject.id}"
        for subject, rows in tables.outbox.items()
        for entry in rows.values()
    ]
    left += [f"litter {name} of {one.s3_key}" for name, one in bucket.multiparts.items()]
    for device in devices.values():
        left += _unfinished_on(device)
        client = tables.clients.get(device.client_id)
        if client is None or not connected(client):
            left.append(f"{device.client_id} is not known to be connected")
    return left


def _unfinished_on(device: "Device") -> list[str]:
    if device.process is None:
        return [f"{device.client_id} is off"]
    left = [
        f"{device.client_id} still has {run.upload_id}: {run.transfer.state}" for run in device.process.agent.uploads
    ]
    if device.broker.online(device.client_id) is None:
        left.append(f"{device.client_id} has no retained presence")
    return left
