"""Presence by compare-and-set: a late will never beats a fresh birth."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.clients import Client, Verdict, apply_presence
from schemas.messages import AgentInfo, Presence
from schemas.values import LAST_SEQUENCE


def said(  # a presence message in one line
    status: str = "online", *, install: str = "i1", epoch: int = 1, sequence: int = 0
) -> Presence:
    """A presence of client `r1`."""
    return Presence("r1", status, install, epoch, sequence)


def will(epoch: int = 1, install: str = "i1") -> Presence:
    """What the broker says when a connection dies."""
    return said("offline", install=install, epoch=epoch, sequence=LAST_SEQUENCE)


def told(*messages: Presence, client: Client | None = None) -> Client | None:
    """The client after these messages, a second apart."""
    for second, message in enumerate(messages):
        client, _ = apply_presence(client, message, float(second))
    return client


def test_a_birth_registers_and_a_beat_keeps_it_connected() -> None:
    """Connected means: online, and heard within 90 s by our own clock."""
    client, verdict = apply_presence(None, said(), 100.0)
    assert client is not None
    assert (verdict, client.connected_at, client.connected(189.0), client.connected(190.0)) == (
        Verdict.BIRTH,
        100.0,
        True,
        False,
    )
    beaten, verdict = apply_presence(client, said(sequence=1), 150.0)
    assert beaten is not None
    assert (verdict, beaten.connected(239.0), beaten.connected_at) == (Verdict.BEAT, True, 100.0)


@pytest.mark.parametrize("order", list(permutations([said(epoch=1), will(1), said(epoch=2)])))
def test_every_order_of_birth_will_and_birth_ends_online(order: tuple[Presence, ...]) -> None:
    """The second birth is the latest, whenever it arrives."""
    client = told(*order)
    assert client is not None
    assert (client.online, client.epoch) == (True, 2)


def test_the_will_of_this_connection_wins_over_its_beats() -> None:
    """A delayed beat does not bring the dead back."""
    client = told(said(), said(sequence=3), will(), said(sequence=4))
    assert client is not None
    assert not client.online


def test_an_offline_of_a_stranger_is_dropped() -> None:
    """A retained will of a client that was deleted."""
    assert apply_presence(None, will(), 0.0) == (None, Verdict.STRANGER)
    client = told(said())
    assert apply_presence(client, will(install="i9"), 1.0) == (client, Verdict.STRANGER)


def test_a_new_install_retires_the_old_one_for_good() -> None:
    """Reinstalled: the pair starts anew; what the old one says no longer counts."""
    client = told(said(epoch=50), said(install="i2", epoch=1))
    assert client is not None
    assert (client.install_id, client.epoch, client.retired) == ("i2", 1, ("i1",))
    assert apply_presence(client, will(epoch=51), 9.0) == (client, Verdict.RETIRED)


def test_two_installs_that_alternate_stop_dispatch() -> None:
    """A cloned card; ten minutes without another sign of it end the alarm."""
    client = told(said(), said(install="i2"), said(epoch=2))
    assert client is not None
    assert client.in_conflict(2.5)
    assert not client.dispatchable(2.5)
    assert "share this client id" in str(client.waiting_for(2.5))
    assert not client.in_conflict(700.0)


def test_an_agent_of_another_protocol_is_not_dispatched_to() -> None:
    """Shown as unsupported."""
    client, _ = apply_presence(None, Presence("r1", "online", "i", 1, 0, agent=AgentInfo(protocol=(2, 3))), 0.0)
    assert client is not None
    assert client.connected(1.0)
    assert not client.dispatchable(1.0)
    assert "protocol [2, 3]" in str(client.waiting_for(1.0))


messages = st.builds(
    said,
    st.sampled_from(("online", "offline")),
    install=st.sampled_from(("i1", "i2")),
    epoch=st.integers(0, 4),
    sequence=st.sampled_from((0, 1, 2, LAST_SEQUENCE)),
)


@given(st.lists(messages, max_size=30))
def test_the_pair_never_goes_back_within_an_install(history: list[Presence]) -> None:
    """And a dropped message leaves the client as it was."""
    client: Client | None = None
    for second, message in enumerate(history):
        after, verdict = apply_presence(client, message, float(second))
        if client is not None and after is not None and after.install_id == client.install_id:
            assert (after.epoch, after.sequence) >= (client.epoch, client.sequence)
        if verdict in {Verdict.STALE, Verdict.RETIRED, Verdict.STRANGER}:
            assert after is client
        if client is not None and after is not None:
            assert set(client.retired) <= set(after.retired)
        client = after
