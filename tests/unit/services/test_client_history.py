"""The presence of a client as spans: without gaps, whatever the log holds.

Rule: changes are drawn in any order of kinds; the log may be cut, and the client in any state.
"""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.changes import ClientConnected, ClientDisconnected, NumberedChange
from control_plane.domain.clients import ClientState
from control_plane.services.clients import history
from control_plane.services.clients.history import MOST_CHANGES, history_of
from tests.support.databases import a_client

NOW = 10_000.0

marks = st.lists(
    st.tuples(st.floats(0, NOW * 1.2), st.sampled_from([ClientConnected, ClientDisconnected])), max_size=8
).map(lambda found: sorted(found, key=lambda one: -one[0]))


def numbered(found: list[tuple[float, type[ClientConnected] | type[ClientDisconnected]]]) -> list[NumberedChange]:
    return [NumberedChange(len(found) - place, kind(at=at, client_id="a")) for place, (at, kind) in enumerate(found)]


@given(
    found=marks,
    since=st.floats(0, NOW - 1),
    online=st.booleans(),
    seen_at=st.floats(0, NOW),
    born=st.floats(0, NOW),
    install=st.sampled_from(["", "i-1"]),
)
def test_spans_follow_each_other_from_the_beginning_to_now(
    found: list[tuple[float, type[ClientConnected] | type[ClientDisconnected]]],
    since: float,
    online: bool,  # noqa: FBT001 - drawn
    seen_at: float,
    born: float,
    install: str,
) -> None:
    client = a_client("a", install_id=install, online=online, seen_at=seen_at, registered_at=born)
    spans = history_of(client, numbered(found), since, NOW).spans
    assert (spans[0].begin, spans[-1].end) == (since, NOW)
    for one, following in itertools.pairwise(spans):
        assert one.begin < one.end == following.begin
        assert one.state != following.state
    if client.never_seen:
        assert {one.state for one in spans} == {ClientState.NEVER_SEEN}


def test_a_client_that_connects_very_often_shows_a_shorter_time() -> None:
    kinds = (ClientConnected, ClientDisconnected)
    found = [(NOW - 1 - place, kinds[place % 2]) for place in range(MOST_CHANGES)]
    client = a_client("a", online=True, seen_at=NOW, registered_at=1.0)
    shown = history.history_of(client, numbered(found), 0.0, NOW)
    assert shown.cut
    assert shown.spans[0].begin == NOW - MOST_CHANGES
