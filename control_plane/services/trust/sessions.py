"""The session of each client that obeys signed commands: what a command for it must name.

Rule: it is that of the presence with the highest epoch and sequence, from the moment in which it came: the hello that
follows is answered before the registry has applied the presence.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from control_plane.domain.clients import Client
from control_plane.services.ports.database import Database
from schemas.messages import Presence

MAX_CLIENTS: Final = 100_000


class _Known(NamedTuple):
    install_id: str
    epoch: int
    session: str | None
    compared: bool
    """Whether the client's row, as far as there is one, is not of a later connection."""


class ClientSessions:
    """Sessions in memory, the latest noted; that of another client is read from its row."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sessions: OrderedDict[str, _Known] = OrderedDict()

    def hear(self, presence: Presence) -> None:
        """Keep the session of a presence that was verified, if it begins a later connection of the same installation.

        What else a presence changes is for the registry to judge, and noted then.
        """
        before = self._sessions.get(presence.client_id)
        later = before is None or (before.install_id == presence.install_id and before.epoch < presence.epoch)
        if later and presence.status == "online":
            self._take(presence, compared=before is not None and before.compared)

    def begin(self, presence: Presence) -> None:
        """Keep the session of a presence whose key was pinned just now, whatever was known of the client before."""
        self._take(presence, compared=True)

    def note(self, client: Client) -> None:
        """Keep the session of a client as the registry has it, unless a later presence was heard meanwhile."""
        before = self._sessions.get(client.client_id)
        known = _Known(client.install_id, client.epoch, client.session, compared=True)
        if before is not None and (
            client.never_seen or (before.install_id == client.install_id and before.epoch > client.epoch)
        ):
            known = before._replace(compared=True)
        self._keep(client.client_id, known)

    def heard(self, client_id: str) -> str | None:
        """The session of a client as far as memory has it."""
        known = self._sessions.get(client_id)
        return None if known is None else known.session

    async def of(self, client_id: str) -> str | None:
        """The session of a client; None for one that obeys unsigned commands, or was never seen."""
        if not self._is_compared(client_id):
            client = await self._database.read(lambda records: records.clients.get(client_id))
            # A presence may have been applied meanwhile.
            if client is not None and not self._is_compared(client_id):
                self.note(client)
        known = self._sessions.get(client_id)
        return None if known is None else known.session

    def _is_compared(self, client_id: str) -> bool:
        known = self._sessions.get(client_id)
        return known is not None and known.compared

    def _take(self, presence: Presence, *, compared: bool) -> None:
        known = _Known(presence.install_id, presence.epoch, presence.session, compared)
        self._keep(presence.client_id, known)

    def _keep(self, client_id: str, known: _Known) -> None:
        self._sessions.pop(client_id, None)
        self._sessions[client_id] = known
        if len(self._sessions) > MAX_CLIENTS:
            self._sessions.popitem(last=False)
