"""`backhaul trigger --sign`: the operator signs and publishes the command, a control plane adopts the upload.

Rule: the control plane makes nothing here. It hears the command as the device does, and obeys the same list of keys.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from control_plane.cli.errors import Failed, Misused, Refused
from control_plane.cli.mqtt.engine import Note, load_settings
from control_plane.cli.mqtt.publish import Addressed, publish_download, require_operator_key
from control_plane.cli.mqtt.request import UploadRequest, read_request
from control_plane.cli.rest.client import ControlPlane, Document
from schemas.messages import KEEP

ADOPTION: Final = 30.0
"""Seconds within which a control plane that received the command has stored the upload."""

_POLL: Final = 0.25
_UPLOAD_ID: Final = "backhaul-idempotency-v1"


def trigger_signed(
    plane: ControlPlane, client: str, body: Mapping[str, Any], note: Note, idempotency_key: str | None = None
) -> Document:
    """Publish the command that REST would make of `body`; the upload as the control plane has it.

    With an idempotency key the id of the upload follows from it, from the client and from the key that signs. So a
    repeat finds the upload; or if nothing has adopted it, the device gets the same one again, and sends the file once.

    `Misused` without a key, for a device that obeys unsigned commands, for members that no command has, and for an
    idempotency key that was used for another request; `Failed` when the device is not heard, its key is not known, or
    nothing adopts the upload.
    """
    wanted = read_request(
        client,
        body.get("file_path"),
        metadata=body.get("metadata", {}),
        options=body.get("options", {}),
        deadline=None,
        after=body.get("after"),
    )
    # First: without an answer of the control plane it cannot be seen whether the upload is adopted.
    plane.status(client)
    if idempotency_key is not None:
        wanted = replace(
            wanted, upload_id=_upload_id(require_operator_key(load_settings()).kid, client, idempotency_key)
        )
        before = _adopted(plane, wanted.upload_id, client)
        if before is not None:
            _require_same(before, wanted)
            return before
    asyncio.run(publish_download(wanted, Addressed(client, note=note), signed=True))
    until = time.monotonic() + ADOPTION
    while (found := _adopted(plane, wanted.upload_id, client)) is None:
        if time.monotonic() > until:
            text = (
                f"the command is published, and {plane.server} has not adopted the upload {wanted.upload_id}: is it at "
                "this broker, and is your key in the published list?"
            )
            raise Failed(text)
        time.sleep(_POLL)
    return found


def _upload_id(kid: str, client: str, idempotency_key: str) -> str:
    named = f"{_UPLOAD_ID}\0{kid}\0{client}\0{idempotency_key}"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def _require_same(found: Document, wanted: UploadRequest) -> None:
    """`Misused` when an upload differs from a request in what the control plane shows of it."""
    after = found["after"]["asked"] if found["after"] else KEEP
    shown = (found["metadata"], after, found["encrypt_to"])
    same = shown == (dict(wanted.metadata), wanted.after, list(wanted.options.encrypt_to))
    if not same or wanted.file_path not in {None, found["file_path"]}:
        text = f"this --idempotency-key asked for another upload before: {wanted.upload_id} of {found['file_path']}"
        raise Misused(text)


def _adopted(plane: ControlPlane, upload_id: str, client: str) -> Document | None:
    """The upload; None while the control plane has none of this id."""
    try:
        return plane.upload(upload_id, client)
    except Refused as error:
        if error.problem.get("status") == HTTPStatus.NOT_FOUND:
            return None
        raise
