"""The shipped `mosquitto.conf`, attacked over the wire by a device with valid credentials and by one with none.

Rule: every attack runs against the file at the top of the repository with the access list that we render; only its
ports and paths are changed. Mallory is enrolled, and so is her victim.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from broker import access
from broker.access import Credentials
from broker.errors import BrokerNotStarted
from schemas.errors import SchemaError
from schemas.topics import TOPICS, Channel, Topics
from tests.support.brokers import CONFIGURATION, Fleet, Open, open_wire, start_fleet
from tests.support.mqtt_packets import Connect, Kind, Property, Value, Will, encode_text, frame
from tests.support.mqtt_wire import SOON, Wire
from tests.support.patience import came_true

__all__ = ["open_wire"]

TOPIC: Final = Topics()
SESSION: Final[dict[int, Value]] = {Property.SESSION_EXPIRY: 600}
NOBODY_LISTENS: Final = 0x10
NOT_AUTHORIZED: Final = 0x87
TOO_LARGE: Final = 0x95
QOS_UNSUPPORTED: Final = 0x9B
UNSPECIFIED: Final = 0x80
LIMIT: Final = 131_072


@dataclass(frozen=True, slots=True)
class Parties:
    """A running broker and who is enrolled at it."""

    fleet: Fleet
    open: Open
    mallory: Credentials
    victim: Credentials
    control_plane: Credentials
    operator: Credentials

    def device(self, credentials: Credentials, connect: Connect | None = None) -> Wire:
        """An accepted device at its listener, by default without a session."""
        return self.open(self.fleet.devices, signed(connect or Connect(credentials.username), credentials))

    def service(self, credentials: Credentials, client_id: str = "") -> Wire:
        """An accepted service or operator at its listener, under any client id."""
        connect = Connect(client_id or f"{credentials.username}-{time.monotonic_ns()}")
        return self.open(self.fleet.services, signed(connect, credentials))

    def witness(self) -> Wire:
        """The control plane, which receives everything below the root."""
        wire = self.service(self.control_plane)
        wire.subscribe(f"{TOPIC.root}/#")
        return wire

    def refused(self, port: int, connect: Connect) -> int:
        """The reason with which the broker refuses a connection."""
        with Wire(port) as wire:
            answer = wire.connect(connect)
            assert answer.kind is Kind.CONNACK
            return answer.reason


def signed(connect: Connect, credentials: Credentials) -> Connect:
    """The connection with a name and a password."""
    return replace(connect, username=credentials.username, password=credentials.password)


def durable(client_id: str) -> Connect:
    """A connection that takes up the session of a name."""
    return Connect(client_id, clean_start=False, properties=dict(SESSION))


def reload(parties: Parties) -> None:
    """Have the files read again, and wait for it: once mosquitto logs that it does, it handles no packet in between."""
    broker, announcement = parties.fleet.broker, "Reloading config."
    before = broker.log_path.read_text().count(announcement)
    broker.reload()
    assert came_true(lambda: broker.log_path.read_text().count(announcement) > before, 10)


def payloads(wire: Wire, count: int = 0) -> list[bytes]:
    """What arrives; `count` messages are waited for."""
    return [packet.payload for packet in wire.gathered(count)]


@pytest.fixture
def parties(tmp_path: Path, open_wire: Open) -> Iterator[Parties]:
    devices = [access.enroll(tmp_path, name) for name in ("mallory", "victim")]
    services = [access.enroll_service(tmp_path, name) for name in ("control-plane", "operator-ann")]
    fleet = start_fleet(tmp_path)
    with fleet.broker:
        yield Parties(fleet, open_wire, *devices, *services)


# --- Who comes in ----------------------------------------------------------------------------------------------------


def test_a_missing_password_is_refused(parties: Parties) -> None:
    for port in (parties.fleet.devices, parties.fleet.services):
        assert parties.refused(port, Connect("mallory")) == NOT_AUTHORIZED
        assert parties.refused(port, Connect("mallory", username="mallory")) == NOT_AUTHORIZED


@pytest.mark.parametrize("username", ["mallory", "victim", "control-plane", "nobody", "", "+", "#"])
def test_a_wrong_password_is_refused(parties: Parties, username: str) -> None:
    for port in (parties.fleet.devices, parties.fleet.services):
        for password in ("", "wrong", parties.mallory.password + "x"):
            connect = Connect("mallory", username=username, password=password)
            assert parties.refused(port, connect) == NOT_AUTHORIZED


def test_a_device_that_is_enrolled_can_connect_after_a_reload(parties: Parties) -> None:
    victim = parties.device(parties.victim)
    newcomer = access.enroll(parties.fleet.directory, "newcomer")
    reload(parties)
    assert parties.device(newcomer).alive
    assert victim.alive


def test_a_revoked_device_is_disconnected_and_cannot_reconnect(parties: Parties) -> None:
    mallory, victim = parties.device(parties.mallory), parties.device(parties.victim)
    access.revoke(parties.fleet.directory, "mallory")
    reload(parties)
    assert mallory.disconnected() is None
    assert parties.refused(parties.fleet.devices, signed(Connect("mallory"), parties.mallory)) == NOT_AUTHORIZED
    assert victim.alive


def test_a_replaced_password_is_the_only_one(parties: Parties) -> None:
    mallory = parties.device(parties.mallory)
    fresh = access.enroll(parties.fleet.directory, "mallory", replace=True)
    reload(parties)
    assert mallory.disconnected() is None
    assert parties.device(fresh).alive
    assert parties.refused(parties.fleet.devices, signed(Connect("mallory"), parties.mallory)) == NOT_AUTHORIZED


def test_a_reload_without_the_password_file_refuses_every_connection(parties: Parties) -> None:
    (parties.fleet.directory / access.PASSWORDS).unlink()
    reload(parties)
    assert parties.refused(parties.fleet.devices, signed(Connect("mallory"), parties.mallory)) == NOT_AUTHORIZED


def test_a_reload_without_the_access_list_removes_it_but_a_start_is_refused(parties: Parties) -> None:
    """Mosquitto 2.0.11 continues without any list, which is why ours is only ever replaced, never removed."""
    (parties.fleet.directory / access.ACCESS_LIST).unlink()
    reload(parties)
    assert parties.device(parties.mallory).publish(TOPIC.response("victim"), b"forged") != NOT_AUTHORIZED
    with pytest.raises(BrokerNotStarted, match="acl"):
        parties.fleet.broker.restart()


def test_a_client_without_a_name_is_refused(parties: Parties) -> None:
    assert parties.refused(parties.fleet.devices, signed(Connect(""), parties.mallory)) == UNSPECIFIED
    assert parties.refused(parties.fleet.services, signed(Connect(""), parties.operator)) == UNSPECIFIED


# --- What a device may ------------------------------------------------------------------------------------------------


def test_a_device_can_do_what_the_protocol_requires(parties: Parties) -> None:
    witness, device = parties.witness(), parties.device(parties.victim)
    device.subscribe(TOPIC.command("victim"), TOPIC.birth())
    control_plane = parties.service(parties.control_plane)
    assert control_plane.publish(TOPIC.command("victim"), b"do") == 0
    assert control_plane.publish(TOPIC.birth(), b"hello?") == 0
    assert payloads(device, 2) == [b"do", b"hello?"]
    for topic in (TOPIC.response("victim"), TOPIC.status("victim"), TOPIC.presence("victim")):
        assert device.publish(topic, topic.encode()) == 0
    assert len(payloads(witness, 5)) == 5


@pytest.mark.parametrize("channel", [row.channel for row in TOPICS if row.per_client])
@pytest.mark.parametrize("qos", [0, 1])
def test_a_device_cannot_publish_on_the_topics_of_another(parties: Parties, channel: Channel, qos: int) -> None:
    witness, mallory = parties.witness(), parties.device(parties.mallory)
    reason = mallory.publish(f"{TOPIC.root}/victim/{channel}", b"forged", qos=qos, retain=True)
    assert reason == (NOT_AUTHORIZED if qos else 0)
    assert mallory.alive
    assert payloads(witness) == []
    late = parties.witness()
    assert payloads(late) == []


@pytest.mark.parametrize(
    "topic",
    [
        TOPIC.birth(),
        TOPIC.command("mallory"),
        f"{TOPIC.root}/mallory",
        f"{TOPIC.root}/mallory/response/more",
        f"{TOPIC.root}/mallory/anything",
        f"{TOPIC.root}//response",
        f"/{TOPIC.root}/mallory/response",
        "elsewhere",
        "$SYS/broker/uptime",
        "$CONTROL/dynamic-security/v1",
    ],
)
def test_a_device_publishes_on_its_own_three_topics_only(parties: Parties, topic: str) -> None:
    witness, mallory = parties.witness(), parties.device(parties.mallory)
    assert mallory.publish(topic, b"forged", retain=True) == NOT_AUTHORIZED
    assert payloads(witness) == []


def test_a_device_receives_only_its_own_messages(parties: Parties) -> None:
    mallory, victim = parties.device(parties.mallory), parties.device(parties.victim)
    spied = ["#", "+/+/+/+", f"{TOPIC.root}/#", f"{TOPIC.root}/+/command", TOPIC.command("victim"), "$SYS/#"]
    shared = [f"$share/spies/{TOPIC.root}/+/command", f"$share/spies/{TOPIC.command('victim')}"]
    # Granted, and worth nothing: a SUBACK is no authorisation on Mosquitto 2.0.
    assert set(mallory.subscribe(*spied, *shared)) <= {0, 1}
    parties.service(parties.control_plane).publish(TOPIC.command("victim"), b"secret")
    victim.publish(TOPIC.response("victim"), b"secret")
    victim.publish(TOPIC.presence("victim"), b"secret", retain=True)
    assert payloads(mallory) == []


def test_a_device_does_not_receive_earlier_retained_messages_of_others(parties: Parties) -> None:
    parties.device(parties.victim).publish(TOPIC.presence("victim"), b"secret", retain=True)
    mallory = parties.device(parties.mallory)
    mallory.subscribe("#", f"{TOPIC.root}/+/presence")
    assert payloads(mallory) == []


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("topic", [TOPIC.presence("victim"), TOPIC.birth(), TOPIC.command("victim"), "$SYS/x"])
def test_a_forged_will_is_never_published(parties: Parties, topic: str, delay: int) -> None:
    witness = parties.witness()
    will = Will(topic, b"forged", delay=delay)
    parties.device(parties.mallory, replace(durable("mallory"), will=will)).drop()
    assert [packet.payload for packet in witness.received(SOON + 2 * delay)] == []


@pytest.mark.slow
def test_a_device_may_set_a_will_on_its_own_presence(parties: Parties) -> None:
    witness = parties.witness()
    will = Will(TOPIC.presence("victim"), b"offline", delay=1)
    parties.device(parties.victim, replace(durable("victim"), will=will)).drop()
    assert [packet.payload for packet in witness.gathered(1)] == [b"offline"]


# --- The name that a device gets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stolen", ["victim", "control-plane-1", "+", "#"])
def test_the_client_id_of_a_device_is_the_username_that_its_password_proved(parties: Parties, stolen: str) -> None:
    """Calling itself `victim` neither pushes the victim out nor takes its queue."""
    victim = parties.device(parties.victim, durable("victim"))
    victim.subscribe(TOPIC.command("victim"))
    mallory = parties.device(parties.mallory, durable(stolen))
    assert not mallory.session_present
    assert victim.alive
    victim.drop()
    time.sleep(0.1)
    parties.service(parties.control_plane).publish(TOPIC.command("victim"), b"do")
    thief = parties.device(parties.mallory, durable(stolen))
    assert payloads(thief) == []
    back = parties.device(parties.victim, durable("victim"))
    assert back.session_present
    assert payloads(back, 1) == [b"do"]


def test_a_second_connection_of_an_attacker_replaces_only_its_first(parties: Parties) -> None:
    first = parties.device(parties.mallory, Connect("victim"))
    parties.device(parties.mallory, Connect("another"))
    assert first.disconnected() is None


@pytest.mark.parametrize("name", ["+", "#", "a/b", "victim/command", "", "control-plane", "cli-1", "operator-x", "a b"])
def test_a_name_that_would_shift_the_patterns_is_not_enrolled(parties: Parties, name: str) -> None:
    before = (parties.fleet.directory / access.PASSWORDS).read_bytes()
    with pytest.raises(SchemaError):
        access.enroll(parties.fleet.directory, name)
    assert (parties.fleet.directory / access.PASSWORDS).read_bytes() == before


def test_a_service_at_the_devices_listener_has_its_username_as_client_id(parties: Parties) -> None:
    victim = parties.device(parties.victim)
    connect = signed(Connect("victim"), parties.operator)
    assert parties.open(parties.fleet.devices, connect).alive
    assert victim.alive


# --- The services' listener -------------------------------------------------------------------------------------------


def test_the_services_listener_is_on_loopback() -> None:
    """What the next test shows is why."""
    lines = CONFIGURATION.read_text().splitlines()
    assert [line for line in lines if line.startswith("listener ")] == ["listener 1883", "listener 1884 127.0.0.1"]


def test_a_device_that_reaches_the_services_listener_can_disconnect_another(parties: Parties) -> None:
    """The known hole of one password file for two listeners; docs/decisions/0002 describes what closes it.

    Its rights do not grow there: it still neither receives nor publishes the victim's messages.
    """
    victim = parties.device(parties.victim, durable("victim"))
    victim.subscribe(TOPIC.command("victim"))
    thief = parties.open(parties.fleet.services, signed(durable("victim"), parties.mallory))
    assert thief.session_present
    assert victim.disconnected() is None
    parties.service(parties.control_plane).publish(TOPIC.command("victim"), b"secret")
    assert payloads(thief) == []
    assert thief.publish(TOPIC.response("victim"), b"forged") == NOT_AUTHORIZED


def test_two_replicas_of_one_account_live_side_by_side(parties: Parties) -> None:
    one = parties.service(parties.control_plane, "control-plane-1")
    two = parties.service(parties.control_plane, "control-plane-2")
    assert one.alive
    assert two.alive


def test_an_operator_commands_and_reads_and_no_more(parties: Parties) -> None:
    operator, device = parties.service(parties.operator), parties.device(parties.victim)
    device.subscribe(TOPIC.command("victim"))
    operator.subscribe(f"{TOPIC.root}/#")
    assert operator.publish(TOPIC.command("victim"), b"do") == 0
    assert payloads(device, 1) == [b"do"]
    assert device.publish(TOPIC.response("victim"), b"done") == 0
    assert payloads(operator, 2) == [b"do", b"done"]
    for topic in (TOPIC.birth(), TOPIC.response("victim"), TOPIC.presence("victim"), TOPIC.status("victim"), "x"):
        assert operator.publish(topic, b"forged") == NOT_AUTHORIZED


def test_the_control_plane_clears_a_malformed_presence(parties: Parties) -> None:
    mallory = parties.device(parties.mallory)
    mallory.publish(TOPIC.presence("mallory"), b"\xff{" * 1000, retain=True)
    control_plane = parties.service(parties.control_plane)
    assert control_plane.publish(TOPIC.presence("mallory"), b"", retain=True) in {0, NOBODY_LISTENS}
    assert payloads(parties.witness()) == []
    for topic in (TOPIC.response("mallory"), TOPIC.status("mallory")):
        assert control_plane.publish(topic, b"forged") == NOT_AUTHORIZED


# --- Too much ---------------------------------------------------------------------------------------------------------


def test_a_message_over_the_limit_is_refused_and_the_connection_stays(parties: Parties) -> None:
    witness, mallory = parties.witness(), parties.device(parties.mallory)
    topic = TOPIC.response("mallory")
    assert mallory.publish(topic, b"x" * LIMIT) == 0
    assert mallory.publish(topic, b"x" * (LIMIT + 1)) == TOO_LARGE
    assert mallory.publish(topic, b"after") == 0
    assert [len(payload) for payload in payloads(witness, 2)] == [LIMIT, 5]


def test_a_packet_over_the_limit_ends_its_own_connection_only(parties: Parties) -> None:
    mallory, victim = parties.device(parties.mallory), parties.device(parties.victim)
    mallory.send(frame(Kind.PUBLISH, encode_text(TOPIC.response("mallory")) + b"\0\1\0", flags=2)[:1] + b"\xff\xff\x7f")
    assert mallory.disconnected() in {TOO_LARGE, None}
    assert victim.alive


def test_quality_of_service_two_is_refused_at_both_listeners(parties: Parties) -> None:
    for wire in (parties.device(parties.mallory), parties.service(parties.operator)):
        wire.send(frame(Kind.PUBLISH, encode_text(TOPIC.response("mallory")) + b"\0\1\0x", flags=4))
        assert wire.disconnected() == QOS_UNSUPPORTED


@pytest.mark.parametrize("port", ["devices", "services"])
def test_the_limits_are_announced(parties: Parties, port: str) -> None:
    connect = signed(Connect("operator-ann", keepalive=3600), parties.operator)
    connack = parties.open(getattr(parties.fleet, port), connect).connack
    assert connack is not None
    assert connack.properties[Property.SERVER_KEEP_ALIVE] == 300
    assert connack.properties[Property.MAXIMUM_QOS] == 1
    assert connack.properties[Property.MAXIMUM_PACKET_SIZE] == 196_608
    assert connack.properties[Property.RECEIVE_MAXIMUM] == 20


def test_a_reload_removes_the_caps_of_a_listener(parties: Parties) -> None:
    """Mosquitto 2.0.11 forgets `max_qos` and `max_connections` at SIGHUP; only a restart brings them back."""
    reload(parties)
    connack = parties.device(parties.mallory).connack
    assert connack is not None
    assert Property.MAXIMUM_QOS not in connack.properties
    parties.fleet.broker.restart()
    connack = parties.device(parties.mallory).connack
    assert connack is not None
    assert connack.properties[Property.MAXIMUM_QOS] == 1


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x10\x00", b"\x00" * 64, b"\x10\xff\xff\xff\xff\xff"])
def test_noise_does_not_disturb_other_connections(parties: Parties, noise: bytes) -> None:
    victim = parties.device(parties.victim)
    with Wire(parties.fleet.devices) as wire:
        wire.send(noise)
        wire.disconnected()
    assert victim.alive
    assert parties.fleet.broker.alive
