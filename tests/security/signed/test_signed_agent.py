"""A real agent with a root of trust, at a real Mosquitto: what it publishes, and whom it obeys.

Rule: the agent is driven from outside only; a test waits for what it publishes, never for a time.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from broker.process import Broker
from device_agent.enrolment.claim import store_claim_secret
from device_agent.trust.identity import open_identity
from schemas.codec import decode, decode_response, encode
from schemas.messages import Command, CommandPayload, DownloadFile, GrantParts, HealthCheck, Presence, UploadConfig
from schemas.signing.canonical import SignedKind, read_signature, to_text
from schemas.signing.documents import KeyList
from schemas.signing.ed25519 import Signer
from schemas.signing.trust import encode_trust
from schemas.topics import Channel, Topics
from schemas.values import LAST_SEQUENCE, Action
from tests.support.agent_process import PATIENCE, AgentProcess, mosquitto, sink, urls
from tests.support.canaries import Canaries
from tests.support.mqtt_packets import Connect, Packet, Property
from tests.support.mqtt_wire import Wire
from tests.support.put_sink import PutSink
from tests.unit.device_agent.trust.fleet import BOB, PLANE, THIEF, entry, keys_of, operator, published, trusting

__all__ = ["mosquitto", "sink"]

TOPICS = Topics()
CLAIM_SECRET = b"a secret of the enrolment, 32 by"
KINDS = {
    Channel.PRESENCE: SignedKind.PRESENCE,
    Channel.RESPONSE: SignedKind.RESPONSE,
    Channel.STATUS: SignedKind.STATUS,
}


class SigningOwner:
    """An owner that signs its commands, and verifies every message of the agent when it arrives."""

    def __init__(self, port: int, client_id: str, device: Signer) -> None:
        self.client_id, self.device = client_id, device
        self.packets: list[Packet] = []
        self._wire = Wire(port)
        self._wire.connect(Connect(f"cli-{client_id}"))
        self._wire.subscribe(*(TOPICS.of(client_id, channel) for channel in KINDS))

    def close(self) -> None:
        self._wire.drop()

    def until(self, happened: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < deadline, self.packets[-3:]
            try:
                packet = self._wire.receive(0.1)
            except TimeoutError:
                continue
            self._wire.acknowledge(packet)
            self._verify(packet)
            self.packets.append(packet)

    def _verify(self, packet: Packet) -> None:
        kind = KINDS[Channel(packet.topic.rpartition("/")[2])]
        named = packet.properties.get(Property.USER, [])
        signature = read_signature(named)  # type: ignore[arg-type]
        assert signature is not None, packet
        assert self.device.verifier.verifies(signature, kind, packet.topic, packet.payload), packet

    def of(self, channel: Channel) -> list[bytes]:
        return [one.payload for one in self.packets if one.topic.endswith(f"/{channel}") and one.payload]

    @property
    def presences(self) -> list[Presence]:
        return [decode(Presence, data) for data in self.of(Channel.PRESENCE)]

    def online(self, epoch: int = 1) -> Presence:
        self.until(lambda: any(one.status == "online" and one.epoch >= epoch for one in self.presences))
        return self.presences[-1]

    def send(self, message_id: str, action: Action, payload: CommandPayload, by: Signer | None = PLANE) -> None:
        session = self.online().session
        data = encode(Command(message_id, action, payload, issued_at=datetime.now(UTC), session=session))
        topic = TOPICS.command(self.client_id)
        named = () if by is None else by.sign(SignedKind.COMMAND, topic, data).properties()
        self._wire.publish(topic, data, user=list(named))

    def answered(self, message_id: str) -> bool:
        return any(decode_response(one).message_id == message_id for one in self.of(Channel.RESPONSE))

    def keys(self, keys: KeyList) -> None:
        self._wire.publish(TOPICS.keys(), encode_trust(published(keys)), retain=True)


@pytest.fixture
def client_id() -> str:
    return f"signed-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def owner(mosquitto: Broker, tmp_path: Path, client_id: str) -> Iterator[SigningOwner]:
    """It listens before the agent starts: a hello is not stored by the broker."""
    trusting(tmp_path / "state", entry(), operator())
    made = SigningOwner(mosquitto.address.port, client_id, open_identity(tmp_path / "state"))
    yield made
    # The next test of this broker begins without a list of keys.
    made._wire.publish(TOPICS.keys(), b"", retain=True)
    made.close()


@pytest.fixture
def agent(owner: SigningOwner, mosquitto: Broker, sink: PutSink, tmp_path: Path) -> Iterator[AgentProcess]:
    store_claim_secret(tmp_path / "state", CLAIM_SECRET)
    with AgentProcess(owner.client_id, tmp_path, mosquitto.address.port, sink.host_port) as running:
        yield running


def test_every_message_is_signed_and_only_signed_commands_are_obeyed(
    agent: AgentProcess, owner: SigningOwner, sink: PutSink
) -> None:
    found = owner.online()
    assert (found.key, found.keys_version, found.unverified) == (owner.device.verifier.text, 1, 0)
    path = agent.file("a.bin", b"content")
    config = UploadConfig(upload_id="u1", attempt=1, owner="control-plane")
    download = DownloadFile(upload_config=config, file_path=str(path))
    for number, by in enumerate((None, THIEF, BOB)):
        owner.send(f"forged{number}", Action.DOWNLOAD_FILE, download, by)
    owner.send("m1", Action.DOWNLOAD_FILE, download)
    owner.until(lambda: owner.answered("m1"))
    granted = UploadConfig(upload_id="u1", presigned_urls=urls(sink, [1], "u1"), expires_in=900)
    owner.send("g1", Action.GRANT_PARTS, GrantParts(upload_config=granted, acknowledges=1))
    owner.until(lambda: any(decode_response(one).status == "success" for one in owner.of(Channel.RESPONSE)[1:]))
    assert [put.body for put in sink.puts] == [b"content"]
    assert not any(owner.answered(f"forged{number}") for number in range(3))
    assert {decode_response(one).action for one in owner.of(Channel.RESPONSE)} == {"hello", "download_file"}
    assert "unverified_messages: 1 so far" in agent.log
    (order,) = (one.order for one in agent.known()[1].values())
    assert order.principal == "control-plane"
    assert agent.terminate() == 0
    owner.until(lambda: owner.presences[-1].status == "offline")
    canaries = Canaries()
    canaries.add("key", owner.device.seed.hex())
    canaries.add("key in text", to_text(owner.device.seed))
    canaries.add("claim secret", to_text(CLAIM_SECRET))
    kept = {("state/identity.json", "key in text"), ("state/claim", "claim secret")}
    assert canaries.found_below(agent.folder) == kept
    assert not canaries.found_in(b"".join(one.payload for one in owner.packets))


def test_the_retained_list_of_keys_is_read_before_the_commands_that_need_it(
    agent: AgentProcess, owner: SigningOwner
) -> None:
    """A new key of the control plane: its first command comes with the list that has it."""
    owner.online()
    owner.keys(keys_of(entry(BOB, "control-plane"), version=2))
    owner.send("h1", Action.HEALTH_CHECK, HealthCheck(), BOB)
    owner.until(lambda: owner.answered("h1"))
    owner.send("h2", Action.HEALTH_CHECK, HealthCheck(), PLANE)
    agent.kill()
    agent.start()
    before = owner.presences[-1].epoch
    assert owner.online(before + 1).keys_version == 2
    owner.send("h3", Action.HEALTH_CHECK, HealthCheck(), BOB)
    owner.until(lambda: owner.answered("h3"))
    assert not owner.answered("h2")


@pytest.mark.slow
def test_the_will_is_signed_as_the_broker_publishes_it(agent: AgentProcess, owner: SigningOwner) -> None:
    """Ten seconds after the process is gone; the session is that of its presence."""
    online = owner.online()
    agent.kill()
    owner.until(lambda: any(one.status == "offline" for one in owner.presences))
    will = owner.presences[-1]
    assert (will.sequence, will.session, will.key) == (LAST_SEQUENCE, online.session, online.key)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format":"backhaul-trust-v1"}'])
def test_a_damaged_root_of_trust_ends_the_agent_with_one_line_and_2(agent: AgentProcess, content: bytes) -> None:
    agent.kill()
    (agent.folder / "state" / "trust.json").write_bytes(content)
    (agent.folder / "agent.log").write_bytes(b"")
    agent.start()
    assert agent.process is not None
    assert agent.process.wait(PATIENCE) == 2
    agent.process = None
    (line,) = [one for one in agent.log.splitlines() if one.startswith("backhaul-agent: ")]
    assert "trust.json is damaged" in line
    assert "Traceback" not in agent.log


def test_without_a_root_of_trust_the_agent_says_at_its_start_that_nothing_is_signed(
    agent: AgentProcess, owner: SigningOwner
) -> None:
    owner.online()
    assert "commands are verified: key=ed25519:" in agent.log
    agent.terminate()
    (agent.folder / "state" / "trust.json").unlink()
    agent.start()
    assert agent.process is not None
    wire = Wire(agent.port)
    wire.connect(Connect("cli-reader"))
    wire.subscribe(TOPICS.presence(agent.client_id))
    deadline, found = time.monotonic() + PATIENCE, {"status": "offline"}
    while found["status"] != "online":
        assert time.monotonic() < deadline
        packet = wire.receive(PATIENCE)
        wire.acknowledge(packet)
        found = msgspec.json.decode(packet.payload)
    wire.drop()
    assert not {"key", "session", "keys_version", "unverified"} & set(found)
    assert "level=warning" in agent.log
    assert "commands are not signed" in agent.log
