"""Questions to a client that it answers at once: which files it has.

Rule: nothing is stored; who asked waits, and a client that does not answer in time is silent, not broken.
"""

import asyncio
import secrets
from typing import Final

from control_plane.services.errors import ClientRefused, ClientSilent
from control_plane.services.ports.messenger import Messenger
from schemas.codec import encode
from schemas.messages import Command, FileList, ListFiles, Response
from schemas.topics import Channel
from schemas.values import Action, ResponseStatus

PATIENCE: Final = 15.0
"""Seconds that a client has to answer."""


class ClientQueries:
    """Asks, and matches answers to questions by `message_id`."""

    def __init__(self, messenger: Messenger, *, patience: float = PATIENCE) -> None:
        self._messenger = messenger
        self._patience = patience
        self._waiting: dict[tuple[str, str], asyncio.Future[Response]] = {}

    def hear(self, client_id: str, response: Response) -> bool:
        """Hand an answer to whoever waits for it; False when nobody does."""
        waiting = self._waiting.pop((client_id, response.message_id), None)
        if waiting is None or waiting.done():
            return False
        waiting.set_result(response)
        return True

    async def files(self, client_id: str, request: ListFiles) -> FileList:
        """The client's files that match; `ClientSilent`, `ClientRefused`, `MessengerDown`."""
        response = await self._ask(client_id, Action.LIST_FILES, request)
        return response.payload if isinstance(response.payload, FileList) else FileList()

    async def _ask(self, client_id: str, action: Action, payload: ListFiles) -> Response:
        message_id = secrets.token_hex(16)
        waiting: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting[client_id, message_id] = waiting
        try:
            async with asyncio.timeout(self._patience):
                command = Command(message_id=message_id, action=action, payload=payload)
                await self._messenger.publish(Channel.COMMAND, client_id, encode(command))
                response = await waiting
        except TimeoutError:
            message = f"client {client_id!r} did not answer within {self._patience:.0f} s"
            raise ClientSilent(message) from None
        finally:
            self._waiting.pop((client_id, message_id), None)
        if ResponseStatus.read(response.status) is not ResponseStatus.SUCCESS:
            raise ClientRefused(response.error or response.status, response.message or "")
        return response
