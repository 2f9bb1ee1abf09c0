"""`backhaul trigger --sign`: the operator signs and publishes the command, a control plane adopts the upload.

Rule: the control plane makes nothing here. It hears the command as the device does, and obeys the same list of keys.
"""

import asyncio
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from control_plane.cli.errors import Failed, Refused
from control_plane.cli.mqtt.engine import Note
from control_plane.cli.mqtt.publish import Addressed, publish_download
from control_plane.cli.mqtt.request import read_request
from control_plane.cli.rest.client import ControlPlane, Document

ADOPTION: Final = 30.0
"""Seconds within which a control plane that received the command has stored the upload."""

_POLL: Final = 0.25


def trigger_signed(plane: ControlPlane, client: str, body: Mapping[str, Any], note: Note) -> Document:
    """Publish the command that REST would make of `body`; the upload as the control plane has it.

    `Misused` without a key, for a device that obeys unsigned commands, and for members that no command has; `Failed`
    when the device is not heard, its key is not known, or nothing adopts the upload.
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


def _adopted(plane: ControlPlane, upload_id: str, client: str) -> Document | None:
    """The upload; None while the control plane has none of this id."""
    try:
        return plane.upload(upload_id, client)
    except Refused as error:
        if error.problem.get("status") == HTTPStatus.NOT_FOUND:
            return None
        raise
