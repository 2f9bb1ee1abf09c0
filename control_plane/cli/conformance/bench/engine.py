"""One upload by the project's own engine, that of `backhaul mqtt`, with a real object store.

Rule: it stays until the client is released; the object stays in the bucket.
"""

import asyncio
from contextlib import suppress

from control_plane.bootstrap import file_database, policy_of
from control_plane.cli.errors import CliError
from control_plane.cli.mqtt.engine import cli_errors, new_owner, running
from control_plane.cli.mqtt.request import UploadRequest
from control_plane.cli.mqtt.run import start, until_over
from control_plane.cli.rest.progress import Document
from control_plane.presentation import upload_document
from control_plane.settings import Settings

_RELEASE = 15.0


class _Silent:
    """A display that shows nothing."""

    def show(self, upload: Document) -> None:
        """Nothing."""

    def note(self, text: str | None) -> None:
        """Nothing."""


async def upload(settings: Settings, client_id: str, path: str, upload_id: str, *, patience: float) -> Document:
    """The document of the upload at its end, which comes after `patience` seconds at the latest.

    An engine that cannot work gives a document with `status` `failed` and its error in `message`.
    """
    database, policy = file_database(), policy_of(settings, owner=new_owner())
    request = UploadRequest(client_id, upload_id, path, deadline=patience)
    try:
        with cli_errors():
            async with running(settings, database, policy, key=request.key, note=lambda _: None) as direct:
                key = await start(direct, request, _Silent())
                view = await until_over(direct, key, _Silent())
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RELEASE):
                        await direct.released.wait()
                return upload_document(view)
    except CliError as error:
        return {"status": "failed", "message": str(error)}
