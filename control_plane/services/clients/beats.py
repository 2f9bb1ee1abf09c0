"""The beats of clients that this process received and did not write.

Rule: a row is at most `WRITE_EVERY` older than the last beat, and every reader of a client's presence reads `latest`.
Each replica receives all presence itself, so none depends on what another one has in memory.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from msgspec.structs import replace

from control_plane.domain.clients import Client

WRITE_EVERY: Final = 300.0
"""Seconds between two writes of a client with beats that change nothing else: each costs a commit."""

MAX_CLIENTS: Final = 100_000


class _Beat(NamedTuple):
    """What a beat changes, and the connection that it belongs to."""

    install_id: str
    epoch: int
    sequence: int
    seen_at: float


class Beats:
    """The latest beat of each client. `started_at` (s since the epoch) is when this process began to receive."""

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._beats: OrderedDict[str, _Beat] = OrderedDict()

    def note(self, client: Client) -> None:
        """Keep a client as it is after a presence message."""
        # Never without an entry in between: threads that read the database look here too.
        self._beats[client.client_id] = _Beat(client.install_id, client.epoch, client.sequence, client.seen_at)
        self._beats.move_to_end(client.client_id)
        if len(self._beats) > MAX_CLIENTS:
            self._beats.popitem(last=False)

    def latest(self, client: Client) -> Client:
        """The client of a row, with the later beat of the same connection that is in memory.

        Beats before the start of this process are not in its memory. A client that may have sent one until then counts
        as seen then: it has as long to send the next one as any other.
        """
        beat = self._beats.get(client.client_id)
        if beat is not None and (beat.install_id, beat.epoch) == (client.install_id, client.epoch):
            if beat.sequence > client.sequence:
                return replace(client, sequence=beat.sequence, seen_at=beat.seen_at)
            return client
        maybe_seen_at = self._maybe_seen_at(client.seen_at)
        return replace(client, seen_at=maybe_seen_at) if client.online and maybe_seen_at > client.seen_at else client

    def seen_at(self, client_id: str, install_id: str, epoch: int, sequence: int, seen_at: float) -> float:
        """When a client was seen last whose row is `online` and has these values: as `latest`, for very many rows."""
        beat = self._beats.get(client_id)
        if beat is not None and beat.epoch == epoch and beat.install_id == install_id:
            return beat.seen_at if beat.sequence > sequence else seen_at
        return max(seen_at, self._maybe_seen_at(seen_at))

    def _maybe_seen_at(self, seen_at: float) -> float:
        return min(self._started_at, seen_at + WRITE_EVERY)


def worth_writing(row: Client | None, client: Client) -> bool:
    """Whether a client differs from its row in more than a beat, or the row is old."""
    if row is None or abs(client.seen_at - row.seen_at) >= WRITE_EVERY:
        return True
    return replace(client, sequence=row.sequence, seen_at=row.seen_at) != row
