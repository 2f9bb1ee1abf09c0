"""Presence by compare-and-set: a late will never overwrites a newer birth."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.clients import Client, ClientState, Verdict, apply_presence
from control_plane.domain.reasons import Reason, ReasonCode
from schemas.messages import AgentInfo, Presence
from schemas.values import LAST_SEQUENCE


def presence(status: str = "online", *, install: str = "i1", epoch: int = 1, sequence: int = 0) -> Presence:
    """A presence of client `r1`."""
    return Presence("r1", status, install, epoch, sequence)


def will(epoch: int = 1, install: str = "i1") -> Presence:
    """The message that the broker publishes when a connection is lost."""
    return presence("offline", install=install, epoch=epoch, sequence=LAST_SEQUENCE)


def after(*messages: Presence, client: Client | None = None) -> Client | None:
    """The client after these messages, a second apart."""
    for second, message in enumerate(messages):
        client, _ = apply_presence(client, message, float(second))
    return client


def test_a_birth_registers_and_a_beat_keeps_it_connected() -> None:
    """Connected means `online` and a last presence less than 90 s ago, by the control plane's clock."""
    client, verdict = apply_presence(None, presence(), 100.0)
    assert client is not None
    assert (verdict, client.connected_at, client.connected(189.0), client.connected(190.0)) == (
        Verdict.BIRTH,
        100.0,
        True,
        False,
    )
    later, verdict = apply_presence(client, presence(sequence=1), 150.0)
    assert later is not None
    assert (verdict, later.connected(239.0), later.connected_at) == (Verdict.BEAT, True, 100.0)


def test_a_client_waits_for_a_connection_and_for_nothing_else() -> None:
    """An online client takes commands; 90 s after its last presence it counts as offline."""
    client = after(presence())
    assert client is not None
    assert client.waiting_for(1.0) is None
    assert client.waiting_for(90.0) == Reason(ReasonCode.CLIENT_OFFLINE, "the client is offline")


@pytest.mark.parametrize("order", list(permutations([presence(epoch=1), will(1), presence(epoch=2)])))
def test_every_order_of_birth_will_and_birth_ends_online(order: tuple[Presence, ...]) -> None:
    """The second birth is the latest, whenever it arrives."""
    client = after(*order)
    assert client is not None
    assert (client.online, client.epoch) == (True, 2)


def test_a_beat_after_the_will_of_its_connection_is_stale() -> None:
    """The will carries the highest sequence."""
    client = after(presence(), presence(sequence=3), will(), presence(sequence=4))
    assert client is not None
    assert not client.online


def test_an_offline_of_an_unknown_install_is_dropped() -> None:
    """For example the retained will of a client that was deleted."""
    assert apply_presence(None, will(), 0.0) == (None, Verdict.STRANGER)
    client = after(presence())
    assert apply_presence(client, will(install="i9"), 1.0) == (client, Verdict.STRANGER)


def test_a_new_install_retires_the_old_one_for_good() -> None:
    """The pair starts again from the new install; presence of the old one is dropped."""
    client = after(presence(epoch=50), presence(install="i2", epoch=1))
    assert client is not None
    assert (client.install_id, client.epoch, client.retired) == ("i2", 1, ("i1",))
    assert apply_presence(client, will(epoch=51), 9.0) == (client, Verdict.RETIRED)


def test_two_installs_that_alternate_stop_dispatch() -> None:
    """A cloned card; ten minutes without another conflict end it."""
    client = after(presence(), presence(install="i2"), presence(epoch=2))
    assert client is not None
    assert client.in_conflict(2.5)
    assert not client.dispatchable(2.5)
    waits = client.waiting_for(2.5)
    assert waits is not None
    assert waits.code == ReasonCode.CLIENT_CONFLICT
    assert "share this client id" in waits.text
    gone = client.waiting_for(500.0)
    assert gone is not None
    assert gone.code == ReasonCode.CLIENT_CONFLICT, "also while it is offline"
    assert not client.in_conflict(700.0)


@pytest.mark.parametrize("sequence", [0, 5])
def test_an_earlier_epoch_long_after_a_later_birth_is_another_state(sequence: int) -> None:
    """A restored state folder, or the twin of a cloned card: a message is not late by so much."""
    client = after(presence(epoch=2), presence(epoch=1))
    assert client is not None
    assert not client.in_conflict(2.0), "soon after the birth that overtook it, it may be late"
    later, verdict = apply_presence(client, presence(epoch=1, sequence=sequence), 90.0)
    assert later is not None
    assert (verdict, later.epoch, later.seen_at) == (Verdict.CONFLICT, 2, 0.0)
    waits = later.waiting_for(91.0)
    assert waits is not None
    assert waits.code == ReasonCode.CLIENT_CONFLICT
    assert "went back to an older copy" in waits.text
    assert "delete the client" in waits.text


def test_a_deleted_client_registers_again_with_any_state() -> None:
    """The way back that an operator confirms, for a state that went back and for a retired installation."""
    client, verdict = apply_presence(None, presence(epoch=1, sequence=7), 1.0)
    assert client is not None
    assert (verdict, client.dispatchable(2.0)) == (Verdict.BIRTH, True)


@pytest.mark.parametrize("message", [will(epoch=1), presence(epoch=2, sequence=0)])
def test_a_late_message_of_the_same_or_an_earlier_epoch_is_stale(message: Presence) -> None:
    """A late will, and a repeated birth, are from the client's own connections."""
    client = after(presence(epoch=2), presence(epoch=2, sequence=3))
    assert apply_presence(client, message, 500.0) == (client, Verdict.STALE)


def test_a_stored_presence_registers_and_is_as_old_as_the_broker_kept_it() -> None:
    """A broker keeps the `online` of a device that was revoked; only a recent one connects."""
    client, verdict = apply_presence(None, presence(), 1000.0, age=90.0)
    assert client is not None
    assert (verdict, client.connected(1000.0)) == (Verdict.BIRTH, False)
    later, _ = apply_presence(client, presence(epoch=2), 1000.0, age=30.0)
    assert later is not None
    assert (later.connected(1000.0), later.connected(1060.0)) == (True, False)


def test_a_stored_presence_does_not_make_a_client_seen_earlier() -> None:
    """It was stored before the connection of the control plane was lost, or in another one."""
    client, _ = apply_presence(None, presence(), 1000.0)
    for message in (presence(sequence=1), presence(epoch=2), will()):
        later, _ = apply_presence(client, message, 1010.0, age=60.0)
        assert later is not None
        assert later.seen_at == 1000.0


@pytest.mark.parametrize("message", [presence(sequence=1), presence(epoch=2), will()])
def test_an_instant_that_lies_far_ahead_is_replaced_by_the_next_presence(message: Presence) -> None:
    """A clock that was three hours ahead wrote it; else the client would be offline for as long."""
    client, _ = apply_presence(None, presence(), 1000.0 + 10_800.0)
    later, _ = apply_presence(client, message, 1000.0)
    assert later is not None
    assert (later.seen_at, later.connected(1001.0)) == (1000.0, message.status == "online")


def test_a_stored_presence_shows_no_second_device() -> None:
    """A retired installation that is gone may have left its `online` at the broker."""
    client = after(presence(), presence(install="i2"))
    assert apply_presence(client, presence(epoch=9), 1000.0, age=90.0) == (client, Verdict.RETIRED)
    client = after(presence(epoch=5))
    assert apply_presence(client, presence(epoch=2), 1000.0, age=90.0) == (client, Verdict.STALE)


def test_an_agent_of_another_protocol_is_not_dispatched_to() -> None:
    """The reason names both protocol versions."""
    client, _ = apply_presence(None, Presence("r1", "online", "i", 1, 0, agent=AgentInfo(protocol=(2, 3))), 0.0)
    assert client is not None
    assert client.connected(1.0)
    assert not client.dispatchable(1.0)
    waits = client.waiting_for(1.0)
    assert waits is not None
    assert waits.code == ReasonCode.CLIENT_UNSUPPORTED
    assert "protocol [2, 3]" in waits.text


messages = st.builds(
    presence,
    st.sampled_from(("online", "offline")),
    install=st.sampled_from(("i1", "i2")),
    epoch=st.integers(0, 4),
    sequence=st.sampled_from((0, 1, 2, LAST_SEQUENCE)),
)


@given(st.lists(messages, max_size=30))
def test_the_pair_never_goes_back_within_an_install(history: list[Presence]) -> None:
    """A dropped message leaves the client unchanged."""
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


# --- expected clients -------------------------------------------------------------------------------------------------


def expected() -> Client:
    return Client(client_id="r1", set_labels={"site": "berlin"}, expected=True, note="opens in May")


def test_a_client_that_is_expected_is_never_seen_until_its_first_presence_fills_it_in() -> None:
    before = expected()
    assert (before.state(1.0), before.dispatchable(1.0)) == (ClientState.NEVER_SEEN, False)
    assert before.waiting_for(1.0) == Reason(
        ReasonCode.CLIENT_NEVER_SEEN, "no agent has connected under this client id yet"
    )
    message = Presence("r1", "online", "i1", 7, 0, labels={"site": "oslo", "floor": "1"})
    seen, verdict = apply_presence(before, message, 100.0)
    assert seen is not None
    assert (verdict, seen.state(100.0), seen.state(200.0)) == (
        Verdict.BIRTH,
        ClientState.CONNECTED,
        ClientState.OFFLINE,
    )
    assert (seen.registered_at, seen.epoch, seen.retired) == (100.0, 7, ())
    assert (seen.expected, seen.note, seen.set_labels) == (True, "opens in May", {"site": "berlin"})
    assert seen.effective_labels == {"site": "berlin", "floor": "1"}


def test_a_will_of_a_client_that_was_never_seen_changes_nothing() -> None:
    before = expected()
    assert apply_presence(before, will(), 100.0) == (before, Verdict.STRANGER)


def test_what_an_operator_wrote_outlives_beats_and_other_installations() -> None:
    client = after(presence(), presence(sequence=1), presence(epoch=2), presence(install="i2"), client=expected())
    assert client is not None
    assert (client.install_id, client.retired) == ("i2", ("i1",))
    assert (client.set_labels, client.expected, client.note) == ({"site": "berlin"}, True, "opens in May")
