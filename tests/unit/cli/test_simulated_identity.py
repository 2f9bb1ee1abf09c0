"""A simulated device of a fleet that signs: what it publishes verifies, and it obeys what a key of the list signed.

Rule: no broker; the device's connection is a list of what it published.
"""

from datetime import UTC, datetime
from typing import Any, Final, cast

import pytest

from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.device import SimulatedDevice
from control_plane.cli.simulate.environment import Counters, Environment
from control_plane.cli.simulate.file import files_of
from control_plane.cli.simulate.http_pool import HttpPool
from control_plane.cli.simulate.identity import Account, FleetTrust, SimulatedIdentity
from control_plane.cli.simulate.packets import Publish, UserProperties
from schemas.codec import decode, decode_response, encode
from schemas.messages import Birth, Command, DownloadFile, ListFiles, Presence, Response
from schemas.signing.canonical import SignedKind, read_signature
from schemas.signing.claims import claim_matches
from schemas.signing.documents import KeyEntry, KeyList, KeyRole, RootDocument, TrustDocument
from schemas.signing.ed25519 import Signer
from schemas.signing.trust import encode_trust, sign_document
from schemas.topics import Topics
from schemas.values import ErrorCode

TOPICS: Final = Topics()
SECRET: Final = bytes(range(32))
ROOT, OWNER, GRANTER, DEVICE, STRANGER = (Signer(bytes([number]) * 32) for number in range(5))
ISSUED: Final = datetime(2026, 1, 1, tzinfo=UTC)


def documents(version: int = 1, signer: Signer = ROOT) -> bytes:
    root = RootDocument(1, 1, (ROOT.verifier.text,), ISSUED)
    both, transfer = (KeyRole.COMMAND, KeyRole.TRANSFER), (KeyRole.TRANSFER,)
    entries = [
        KeyEntry(key.verifier.text, "control-plane", roles, ("/**",), ("control-plane",))
        for key, roles in ((OWNER, both), (GRANTER, transfer))
    ]
    keys = KeyList(1, version, ISSUED, tuple(entries))
    signed = sign_document(root, TOPICS.keys(), [ROOT])
    return encode_trust(TrustDocument((signed,), sign_document(keys, TOPICS.keys(), [signer])))


class Site:
    """One connected device; `sent` has topic, payload and user properties of each message."""

    def __init__(self) -> None:
        root = RootDocument(1, 1, (ROOT.verifier.text,), ISSUED)
        fleet = FleetTrust(sign_document(root, TOPICS.keys(), [ROOT]), TOPICS.keys())
        self.identity = SimulatedIdentity("d", DEVICE, SECRET, fleet)
        self.sent: list[tuple[str, bytes, UserProperties]] = []
        self.filters: list[str] = []
        environment = Environment(TOPICS, files_of(1, 100), cast("HttpPool", None), Counters(), 1)
        self.device = SimulatedDevice("d", environment, account=Account("secret", self.identity))
        self.connect = self.device.publisher.next_connect()
        self.device.connected(cast("MqttConnection", self))
        self.receive(TOPICS.keys(), documents())

    def subscribe(self, filters: Any) -> int:  # noqa: ANN401
        self.filters = [one.topic for one in filters]
        return 1

    def publish(self, topic: bytes, payload: bytes, *, properties: UserProperties = (), **_options: Any) -> int:  # noqa: ANN401
        self.sent.append((topic[2:].decode(), payload, properties))
        return 1

    def receive(self, topic: str, payload: bytes, properties: UserProperties = ()) -> None:
        self.device.received(Publish(topic, payload, 1, retained=False, properties=properties))

    def command(self, payload: Any, key: Signer | None, session: str | None = None) -> list[Response]:  # noqa: ANN401
        """Give a command that this key signed; what the device answered."""
        actions: dict[type, str] = {DownloadFile: "download_file", ListFiles: "list_files"}
        command = Command("m", actions[type(payload)], payload, session=session or self.identity.session)
        data, topic = encode(command), TOPICS.command("d")
        self.sent.clear()
        self.receive(topic, data, () if key is None else key.sign(SignedKind.COMMAND, topic, data).properties())
        return [decode_response(payload) for topic, payload, _ in self.sent if topic.endswith("response")]


def verifies(topic: str, payload: bytes, properties: UserProperties) -> bool:
    signature = read_signature(properties)
    kind = SignedKind(topic.rpartition("/")[2])
    return signature is not None and DEVICE.verifier.verifies(signature, kind, topic, payload)


async def test_what_it_publishes_is_signed_and_its_presence_names_the_session_of_its_will() -> None:
    site = Site()
    assert site.sent
    assert all(verifies(*message) for message in site.sent)
    will = site.connect.will
    assert will is not None
    assert verifies(will.topic, will.payload, will.properties)
    presences = [decode(Presence, site.sent[0][1]), decode(Presence, will.payload)]
    assert {one.session for one in presences} == {site.identity.session}
    assert {one.key for one in presences} == {DEVICE.verifier.text}
    claim = presences[0].claim
    assert claim is not None
    assert claim_matches(claim, SECRET, "d", DEVICE.verifier.public_key)
    assert site.connect.password == "secret"


async def test_another_connection_is_another_session() -> None:
    site = Site()
    before = site.identity.session
    will = site.device.publisher.next_connect().will
    assert will is not None
    assert decode(Presence, will.payload).session == site.identity.session != before


async def test_it_obeys_what_a_key_of_the_list_signed_for_this_session() -> None:
    site = Site()
    assert [one.status for one in site.command(ListFiles("*"), OWNER)] == ["success"]
    assert [one.status for one in site.command(DownloadFile(), OWNER)] == ["in_progress"]
    assert site.identity.unverified == 0


@pytest.mark.parametrize("key", [None, STRANGER, GRANTER], ids=["unsigned", "unknown key", "key without the role"])
async def test_it_does_not_obey_and_counts_what_no_such_key_signed(key: Signer | None) -> None:
    site = Site()
    assert site.command(DownloadFile(), key) == []
    assert site.identity.unverified == 1
    site.device.heartbeat()
    assert decode(Presence, site.sent[-1][1]).unverified == 1


async def test_a_command_for_another_session_is_answered_stale_epoch() -> None:
    site = Site()
    [answer] = site.command(DownloadFile(), OWNER, session="A" * 22)
    assert answer.error == ErrorCode.STALE_EPOCH


async def test_a_birth_that_no_key_signed_is_counted() -> None:
    site = Site()
    site.receive(TOPICS.birth(), encode(Birth("control-plane")))
    assert site.identity.unverified == 1


async def test_a_list_of_keys_is_trusted_when_the_root_signed_it_and_it_is_not_older() -> None:
    site = Site()
    assert TOPICS.keys() in site.filters
    for data, version, unverified in ((documents(3), 3, 0), (documents(2), 3, 1), (documents(4, STRANGER), 3, 2)):
        site.receive(TOPICS.keys(), data)
        assert (site.identity.facts()["keys_version"], site.identity.unverified) == (version, unverified)
