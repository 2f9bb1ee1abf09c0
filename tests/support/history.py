"""Checks the record of a run against the promises (P1 to P9, P13, P15 of reliability.md).

Rule: pure. The checker reads logs and answers only, never a process, so a changed history can test the checker.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

from control_plane.adapters.object_store.settings import PROBE_FOLDER
from schemas.names import RECEIPT_SUFFIX
from tests.support.strict_s3 import Operation, StoreEvent

TERMINAL: Final = frozenset({"completed", "failed", "rejected", "cancelled", "expired"})
OK: Final = 200
OUR_FAULTS: Final = frozenset({"message.fault", "duty.fault", "request.failed"})
"""Events in the control plane's log that report a fault of its own."""

MAKES: Final = frozenset({Operation.COMPLETE_MULTIPART_UPLOAD, Operation.PUT_OBJECT})
LATE: Final = 10.0
"""Seconds after a blow in which the object store may still answer, or log, a request of a dead sender."""

APPLIED: Final = frozenset({"birth", "offline"})
"""Verdicts on a presence message that change the stored pair; beats do too, and are not logged."""

_EPOCH: Final = re.compile(r'"connected: epoch=(\d+)"')


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """A message about an upload, recorded at the broker at `at` (s since the epoch)."""

    at: float
    message: Mapping[str, Any]

    @property
    def payload(self) -> Mapping[str, Any]:
        """The payload; empty when it is not an object."""
        payload = self.message.get("payload")
        return payload if isinstance(payload, Mapping) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedTrigger:
    """One trigger that was answered with 200, and the file contents that may follow. `size` is in bytes."""

    upload_id: str
    size: int
    versions: frozenset[str]
    """SHA-256 of every content that the file had since the trigger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One run. `uploads` and `objects` are by upload id; `messages` are in the order of arrival; the rest is by client.

    `blows` are the instants at which a client may have lost answers of the object store, at most `in_flight` each time.
    `connected` is the control plane's view at the end.
    """

    accepted: tuple[AcceptedTrigger, ...]
    uploads: Mapping[str, Mapping[str, Any]]
    objects: Mapping[str, str]
    store: tuple[StoreEvent, ...]
    plane: tuple[Mapping[str, Any], ...] = ()
    epochs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    messages: tuple[RecordedMessage, ...] = ()
    agent_logs: Mapping[str, str] = field(default_factory=dict)
    blows: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    in_flight: int = 0
    connected: Mapping[str, bool] = field(default_factory=dict)


def check(history: History) -> list[str]:
    """Every broken promise, as `P2: what happened`; empty when all were kept.

    Requests of a probe do not count: it writes the same few names again each time.
    """
    uploads = tuple(event for event in history.store if not event.key.startswith(f"{PROBE_FOLDER}/"))
    history = replace(history, store=uploads)
    found = (rule(history) for rule in RULES)
    return [violation for violations in found for violation in violations]


def read_plane_log(text: str) -> tuple[Mapping[str, Any], ...]:
    """The structured lines of a control plane's log."""
    lines = (line for line in text.splitlines() if line.startswith("{") and line.endswith("}"))
    return tuple(json.loads(line) for line in lines)


def read_epochs(text: str) -> tuple[int, ...]:
    """The epochs of an agent's connections, in the order in which it had them."""
    return tuple(int(epoch) for epoch in _EPOCH.findall(text))


def _accepted(history: History) -> Iterator[str]:
    """P1 and P6: every accepted upload exists, and has ended."""
    for trigger in history.accepted:
        upload = history.uploads.get(trigger.upload_id)
        if upload is None:
            yield f"P1: {trigger.upload_id} was accepted and is unknown"
        elif upload["state"] not in TERMINAL:
            yield f"P6: {trigger.upload_id} is {upload['state']} for ever: {upload.get('reason')}"
        elif upload["state"] != "completed" and upload["state"] != "cancelled" and not upload.get("error"):
            yield f"P6: {trigger.upload_id} is {upload['state']}, without an error"


def _once(history: History) -> Iterator[str]:
    """P2: at most one object is made under one key.

    The receipt beside an object is stored again after a crash around it, and when the device has signed it too.
    """
    made = Counter(event.key for event in history.store if event.done and event.operation in MAKES)
    for key, times in made.items():
        object_key = key.removesuffix(RECEIPT_SUFFIX)
        if times > 1 and object_key == key:
            yield f"P2: {times} objects were made under {key}"
        elif object_key != key and object_key not in made:
            yield f"P2: a receipt was stored under {key}, and no object beside it"


def _true(history: History) -> Iterator[str]:
    """P3 and P4: the object of a completed upload exists, is proven, and is one version of the file."""
    made = {event.key for event in history.store if event.done and event.operation in MAKES}
    for trigger in history.accepted:
        upload = history.uploads.get(trigger.upload_id, {})
        if upload.get("state") != "completed":
            continue
        if upload["s3_key"] not in made:
            yield f"P3: {trigger.upload_id} is completed, and no object was made"
        if upload.get("proof") in {None, "size"}:
            yield f"P3: {trigger.upload_id} is completed without proof"
        if history.objects.get(trigger.upload_id) not in trigger.versions:
            yield f"P4: the object of {trigger.upload_id} is no version of its file"


@dataclass(frozen=True, slots=True, order=True)
class _Repeat:
    """A part that the object store had stored and answered, and that came again."""

    answered_at: float
    again_at: float
    key: str
    part_number: int | None


def _repeats(store: Iterable[StoreEvent]) -> Iterator[_Repeat]:
    answered: dict[tuple[str, str | None, int | None], float] = {}
    for event in store:
        if event.operation != Operation.UPLOAD_PART:
            continue
        name = (event.key, event.upload_id, event.part_number)
        if name in answered:
            # All requests until the next answer count as one repeat.
            yield _Repeat(answered.pop(name), event.at, event.key, event.part_number)
        if event.done and event.fault is None and event.status == OK:
            answered[name] = event.at


def _resumed(history: History) -> Iterator[str]:
    """P5: an answered part comes again only after a blow to its client, and at most as many as were in flight."""
    clients = {upload["s3_key"]: upload["client_id"] for upload in history.uploads.values()}
    spent: Counter[tuple[str, float]] = Counter()
    for repeat in sorted(_repeats(history.store)):
        client_id = clients.get(repeat.key)
        if client_id is None:
            continue
        blows = [at for at in history.blows.get(client_id, ()) if repeat.answered_at - LATE <= at <= repeat.again_at]
        excuse = next((at for at in blows if spent[client_id, at] < history.in_flight), None)
        if excuse is None:
            text = f"part {repeat.part_number} of {repeat.key} was sent again after the object store had answered"
            yield f"P5: {text}; {client_id} had {len(blows)} blows meanwhile"
        else:
            spent[client_id, excuse] += 1


def _fenced(history: History) -> Iterator[str]:
    """P2: after an object was made, no earlier multipart upload of its key stores a part."""
    completed: dict[str, str | None] = {}
    for event in history.store:
        if not event.done:
            continue
        if event.operation == Operation.COMPLETE_MULTIPART_UPLOAD:
            completed[event.key] = event.upload_id
        elif event.operation == Operation.UPLOAD_PART and event.key in completed:
            yield f"P2: a part of {event.key} was stored after its object was made"


def _present(history: History) -> Iterator[str]:
    """P8: epochs only grow, no late will or birth is applied, and a client that is online counts as connected."""
    for client_id, epochs in history.epochs.items():
        for before, after in pairwise(epochs):
            if after <= before:
                yield f"P8: {client_id} connected with epoch {after} after {before}"
    latest: dict[tuple[str, str], tuple[int, int]] = {}
    for line in history.plane:
        if line.get("event") != "presence" or line["verdict"] not in APPLIED:
            continue
        device, pair = (line["client_id"], line["install_id"]), (line["epoch"], line["sequence"])
        if pair <= latest.get(device, (0, -1)):
            yield f"P8: {line['verdict']} {pair} of {line['client_id']} was applied after {latest[device]}"
        latest[device] = pair
    for client_id, connected in history.connected.items():
        if not connected:
            yield f"P8: {client_id} is online, and is not shown as connected"


def _persisted(history: History) -> Iterator[str]:
    """P9: an etag is reported after its part was stored, an upload closed as completed after its object was made."""
    keys = {one.upload_id: history.uploads[one.upload_id]["s3_key"] for one in history.accepted if _known(history, one)}
    stored: dict[tuple[str, int], float] = {}
    made: dict[str, float] = {}
    for event in history.store:
        if event.done and event.operation == Operation.UPLOAD_PART:
            stored.setdefault((event.key, event.part_number or 0), event.at)
        elif event.done and event.operation in MAKES:
            made.setdefault(event.key, event.at)
            stored.setdefault((event.key, 1), event.at)
    for recorded in history.messages:
        key = keys.get(str(recorded.payload.get("upload_id")))
        if key is None:
            continue
        etags = recorded.payload.get("etags") or {}
        if [number for number in etags if stored.get((key, int(number)), recorded.at + 1) > recorded.at]:
            yield f"P9: etags of {key} were reported before their parts were stored"
        closed = recorded.message.get("action") == "close_upload" and recorded.payload.get("outcome") == "completed"
        if closed and made.get(key, recorded.at + 1) > recorded.at:
            yield f"P9: {key} was closed as completed before its object was made"


def _unharmed(history: History) -> Iterator[str]:
    """P13: no message met a fault of the control plane or of an agent."""
    for line in history.plane:
        if line.get("event") in OUR_FAULTS:
            yield f"P13: the control plane logs {line['event']}: {line.get('error')}"
    for client_id, log in history.agent_logs.items():
        if "Traceback" in log:
            yield f"P13: {client_id} met a fault: {log[log.index('Traceback') :][:300]}"


def _clean(history: History) -> Iterator[str]:
    """P15: every multipart upload that took a part was completed or aborted."""
    used: dict[str, str] = {}
    ended: set[str | None] = set()
    for event in history.store:
        if event.operation == Operation.UPLOAD_PART and event.upload_id and event.done:
            used[event.upload_id] = event.key
        if event.done and event.operation in {
            Operation.COMPLETE_MULTIPART_UPLOAD,
            Operation.ABORT_MULTIPART_UPLOAD,
        }:
            ended.add(event.upload_id)
    for s3_upload_id, key in used.items():
        if s3_upload_id not in ended:
            yield f"P15: a multipart upload of {key} was left behind"


def _known(history: History, trigger: AcceptedTrigger) -> bool:
    return trigger.upload_id in history.uploads


RULES: Final = (_accepted, _once, _true, _resumed, _fenced, _present, _persisted, _unharmed, _clean)


def litter(events: Iterable[StoreEvent]) -> list[str]:
    """The P15 violations of `check`; clean-ups take a moment, so a run waits for them."""
    return list(_clean(History(accepted=(), uploads={}, objects={}, store=tuple(events))))
