"""When a client was connected: its presence over the last days, read off the change log.

Rule: pure. Where the log does not go, the span is unknown, not guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.domain.changes import ClientConnected, ClientDisconnected, NumberedChange
from control_plane.domain.clients import Client, ClientState

MOST_CHANGES: Final = 2_000
"""Changes that are read; a client that connects more often shows a shorter time."""


@dataclass(frozen=True, slots=True)
class PresenceTime:
    """A time (s since the epoch) for which a client was in one state. `state` is None where it is not known."""

    state: ClientState | None
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class History:
    """The spans of a client, oldest first, without gaps. `cut`: there were changes before them that were not read."""

    spans: tuple[PresenceTime, ...]
    cut: bool


def history_of(client: Client, newest_first: Sequence[NumberedChange], since: float, now: float) -> History:
    """The presence of a client from `since` to `now` (both s), from its last changes.

    A connection that broke without an `offline` ends where the client was last seen, if that is known.
    """
    cut = len(newest_first) >= MOST_CHANGES
    changes = [one.change for one in reversed(newest_first)]
    marks = [
        (one.at, ClientState.CONNECTED if isinstance(one, ClientConnected) else ClientState.OFFLINE)
        for one in changes
        if isinstance(one, ClientConnected | ClientDisconnected) and one.at < now
    ]
    state = _before(client, marks, cut=cut)
    if cut and marks:
        since = max(since, marks[0][0])
    spans: list[PresenceTime] = []
    begin = since
    for at, following in marks:
        if at > begin:
            _add(spans, PresenceTime(state, begin, at))
            begin = at
        state = following
    now_state = client.state(now)
    if state is ClientState.CONNECTED and now_state is ClientState.OFFLINE and begin < client.seen_at < now:
        _add(spans, PresenceTime(state, begin, client.seen_at))
        begin = client.seen_at
    _add(spans, PresenceTime(now_state, begin, now))
    return History(tuple(_split_first(spans, client)), cut)


def _before(client: Client, marks: Sequence[tuple[float, ClientState]], *, cut: bool) -> ClientState | None:
    """The state before the first mark."""
    if not marks:
        # No connection began or ended in the log: it has been as it is.
        return ClientState.CONNECTED if client.online else ClientState.OFFLINE
    if cut:
        return None
    return ClientState.OFFLINE if marks[0][1] is ClientState.CONNECTED else ClientState.CONNECTED


def _add(spans: list[PresenceTime], span: PresenceTime) -> None:
    """Append a span, or lengthen the last one when its state is the same."""
    if spans and spans[-1].state == span.state:
        spans[-1] = PresenceTime(span.state, spans[-1].begin, span.end)
    elif span.end > span.begin:
        spans.append(span)


def _split_first(spans: Sequence[PresenceTime], client: Client) -> list[PresenceTime]:
    """The spans; what lies before the first birth of the client was never seen."""
    born = client.registered_at
    shown: list[PresenceTime] = []
    for span in spans:
        if client.never_seen or span.end <= born:
            _add(shown, PresenceTime(ClientState.NEVER_SEEN, span.begin, span.end))
        elif span.begin < born:
            _add(shown, PresenceTime(ClientState.NEVER_SEEN, span.begin, born))
            _add(shown, PresenceTime(span.state, born, span.end))
        else:
            _add(shown, span)
    return shown
