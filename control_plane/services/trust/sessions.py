"""The session of each client that obeys signed commands: what a command for it must name.

Rule: it is that of the presence with the highest epoch and sequence, as the registry applied it.
"""

from collections import OrderedDict
from typing import Final

from control_plane.domain.clients import Client
from control_plane.services.ports.database import Database

MAX_CLIENTS: Final = 100_000


class ClientSessions:
    """Sessions in memory, the latest used; that of another client is read from its row."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sessions: OrderedDict[str, str | None] = OrderedDict()

    def note(self, client: Client) -> None:
        """Keep the session of a client as it is after a presence message."""
        self._sessions.pop(client.client_id, None)
        self._sessions[client.client_id] = client.session
        if len(self._sessions) > MAX_CLIENTS:
            self._sessions.popitem(last=False)

    async def of(self, client_id: str) -> str | None:
        """The session of a client; None for one that obeys unsigned commands, or was never seen."""
        if client_id not in self._sessions:
            client = await self._database.read(lambda records: records.clients.get(client_id))
            if client is None:
                return None
            # A presence may have been applied meanwhile.
            if client_id not in self._sessions:
                self.note(client)
        return self._sessions[client_id]
