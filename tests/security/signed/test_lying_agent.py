"""What a client may do in the name of a device whose key is pinned: nothing, unless that key signed exactly this.

Rule: every lie is counted and dropped before it is decoded, and nothing of it is stored or answered.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from control_plane.domain.devices import Device, DeviceState
from control_plane.services.policy import Policy
from control_plane.services.ports.messenger import Delivered
from control_plane.services.trust.sessions import ClientSessions
from schemas.codec import decode_command, encode
from schemas.messages import Command, DownloadFile, Hello, Presence, Response
from schemas.signing.canonical import KID, SIGNATURE, SignedKind, read_signature
from schemas.signing.claims import claim_of
from schemas.topics import Channel
from tests.security.signed.rig import (
    DEVICE,
    LIAR,
    OTHER,
    PLANE,
    SECRET,
    SESSION,
    SignedRig,
    altered_fields,
    claimed,
    messages,
    presence,
)
from tests.support.fakes import CLIENT

KINDS = ("presence", "response", "hello", "status")


@pytest.fixture
async def rig() -> AsyncIterator[SignedRig]:
    async with SignedRig(key=PLANE) as rig:
        await rig.online()
        yield rig


async def an_upload(rig: SignedRig) -> str:
    """One upload whose command was published."""
    view = await rig.trigger()
    return view.upload.upload_id


@pytest.mark.parametrize("kind", KINDS)
async def test_the_device_itself_changes_something_with_each_of_these(rig: SignedRig, kind: str) -> None:
    """So that the lies below are about messages that matter."""
    channel, payload = messages(await an_upload(rig))[kind]
    before = await rig.state()
    await rig.send(channel, payload)
    assert rig.refused == []
    assert await rig.state() != before


@pytest.mark.parametrize("kind", KINDS)
async def test_no_altered_field_has_an_effect(rig: SignedRig, kind: str) -> None:
    channel, payload = messages(await an_upload(rig))[kind]
    signed, before = rig.signature(channel, payload), await rig.state()
    lies = [lie for lie in altered_fields(payload) if lie != payload]
    for lie in lies:
        rig.clock.time += 1.0
        rig.engine.inbox.receive(delivered(rig, channel, lie, signed))
    await rig.settle()
    assert len(lies) > 5
    assert rig.refused == ["bad_signature"] * len(lies)
    assert await rig.state() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_no_altered_byte_has_an_effect(rig: SignedRig, kind: str) -> None:
    channel, payload = messages(await an_upload(rig))[kind]
    signed, before = rig.signature(channel, payload), await rig.state()
    for at in range(len(payload)):
        rig.clock.time += 1.0
        lie = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
        rig.engine.inbox.receive(delivered(rig, channel, lie, signed))
    await rig.settle()
    assert rig.refused == ["bad_signature"] * len(payload)
    assert await rig.state() == before


def lies_about_signatures(rig: SignedRig, channel: Channel, payload: bytes) -> Iterator[tuple[str, object]]:
    """By name: user properties that do not sign this message on this topic with the pinned key."""
    right = rig.signature(channel, payload)
    (kid, name), (_, value) = right
    yield "none", ()
    yield "no kid", ((SIGNATURE, value),)
    yield "no signature", ((KID, name),)
    yield "twice", (*right, (SIGNATURE, value))
    yield "two kids", (*right, (KID, LIAR.kid))
    yield "another key", rig.signature(channel, payload, LIAR)
    yield "another key under this name", ((KID, name), rig.signature(channel, payload, LIAR)[1])
    yield "of another kind", tuple(DEVICE.sign(SignedKind.BIRTH, rig.topics.of(CLIENT, channel), payload).properties())
    others = DEVICE.sign(SignedKind(channel.value), rig.topics.of(OTHER, channel), payload)
    yield "of another topic", tuple(others.properties())
    yield "cut", ((kid, name), (SIGNATURE, value[:-1]))
    yield "padded", ((kid, name), (SIGNATURE, f"{value}=="))


@pytest.mark.parametrize("kind", KINDS)
async def test_no_other_signature_has_an_effect(rig: SignedRig, kind: str) -> None:
    channel, payload = messages(await an_upload(rig))[kind]
    before = await rig.state()
    for name, lie in lies_about_signatures(rig, channel, payload):
        rig.clock.time += 5.0
        count = len(rig.refused)
        await rig.send(channel, payload, lie)  # type: ignore[arg-type]
        assert len(rig.refused) == count + 1, name
        assert (await rig.state())[1:] == before[1:], name


async def test_a_device_cannot_speak_for_another(rig: SignedRig) -> None:
    """Its own key is pinned under its own name, and under no other."""
    before = await rig.state()
    for channel, payload in messages(await an_upload(rig)).values():
        signed = tuple(LIAR.sign(SignedKind(channel.value), rig.topics.of(CLIENT, channel), payload).properties())
        await rig.send(channel, payload, signed)
    assert len(rig.refused) == len(KINDS)
    assert (await rig.state())[0] == before[0]


async def test_what_was_sent_before_has_no_effect_again(rig: SignedRig) -> None:
    """A hostile broker may repeat what the device signed, and no earlier presence or hello moves anything back."""
    upload_id = await an_upload(rig)
    old = encode(presence(epoch=4, sequence=9, labels={"site": "old"}))
    hello = encode(Response("h", "hello", "success", Hello(f"install-{CLIENT}"), epoch=4))
    await rig.online(sequence=1)
    before = await rig.state()
    await rig.send(Channel.PRESENCE, old)
    await rig.send(Channel.RESPONSE, hello)
    client, *rest = await rig.state()
    assert client.labels == before[0].labels
    assert (client.epoch, client.session) == (5, SESSION)
    assert rest == list(before[1:])
    assert rig.counted("hello.stale") == 1
    assert upload_id


async def test_what_an_installation_said_that_was_replaced_has_no_effect_again(rig: SignedRig) -> None:
    await an_upload(rig)
    await rig.online(install_id="new", epoch=1)
    before = await rig.state()
    old = encode(Response("h", "hello", "success", Hello(f"install-{CLIENT}"), epoch=9))
    await rig.send(Channel.RESPONSE, old)
    assert await rig.state() == before
    assert rig.counted("hello.stale") == 1


async def test_a_hello_without_its_first_page_means_nothing(rig: SignedRig) -> None:
    """Of a withheld page nothing follows: an upload that it listed is not missing."""
    await an_upload(rig)
    before = await rig.state()
    for message_id in ("h.2", "h.3"):
        await rig.send(Channel.RESPONSE, encode(Response(message_id, "hello", "success", Hello("install"), epoch=5)))
    assert await rig.state() == before
    assert rig.counted("hello.refused") == 2


async def test_a_page_that_is_withheld_in_the_middle_ends_the_hello(rig: SignedRig) -> None:
    await an_upload(rig)
    before = await rig.state()
    for message_id, more in (("h", True), ("h.3", False)):
        hello = Hello("install", (), more)
        await rig.send(Channel.RESPONSE, encode(Response(message_id, "hello", "success", hello, epoch=5)))
    assert await rig.state() == before


async def test_a_heard_command_that_no_listed_key_signed_is_not_adopted(rig: SignedRig) -> None:
    command = encode(Command("foreign", "download_file", DownloadFile(file_path="/data/x")))
    topic = rig.topics.command(CLIENT)
    for properties in ((), tuple(LIAR.sign(SignedKind.COMMAND, topic, command).properties())):
        rig.engine.inbox.receive(delivered(rig, Channel.COMMAND, command, properties))
        await rig.settle()
    assert rig.refused == ["unsigned", "bad_signature"]
    assert (await rig.state())[1] == ()


async def test_a_revoked_device_is_not_heard_under_any_name(rig: SignedRig) -> None:
    await rig.registered(Device(CLIENT, DeviceState.REVOKED, 1.0, "ana", public_key=DEVICE.verifier.public_key))
    await rig.database.write(lambda records: records.devices.revoke_key(DEVICE.verifier.public_key, CLIENT, 1.0))
    await rig.engine.pins.load()
    before = await rig.state()
    await rig.send(Channel.PRESENCE, encode(presence(sequence=1)))
    other = encode(presence(sequence=1)).replace(CLIENT.encode(), b"restaurant-9")
    await rig.send(Channel.PRESENCE, other, (), client_id="restaurant-9")
    assert rig.refused == ["revoked", "revoked"]
    assert await rig.state() == before


async def test_another_key_under_the_name_raises_the_alarm_and_is_not_applied(rig: SignedRig) -> None:
    before = await rig.state()
    stranger = encode(presence(key=LIAR.verifier.text, sequence=1, labels={"site": "x"}))
    await rig.send(Channel.PRESENCE, stranger, rig.signature(Channel.PRESENCE, stranger, LIAR))
    pin = rig.engine.pins.of(CLIENT)
    assert pin is not None
    assert pin.alarm
    assert await rig.state() == before
    assert rig.refused == ["other_key"]


@pytest.mark.parametrize("claim", ["right", "wrong", "another key's"])
async def test_the_first_presence_needs_the_claim_of_its_key(claim: str) -> None:
    async with SignedRig(key=PLANE) as rig:
        await rig.database.write(lambda records: records.devices.delete(CLIENT))
        await rig.registered(Device(CLIENT, DeviceState.ENROLLED, 1.0, "ana", claim_secret=b"s" * 32))
        payload = {
            "right": claimed(),
            "wrong": claimed(secret=b"w" * 32),
            "another key's": encode(presence(claim=claim_text_of_the_liar())),
        }[claim]
        hello = encode(Response("h", "hello", "success", Hello("install"), epoch=5))
        await rig.send(Channel.RESPONSE, hello)
        assert rig.refused == ["not_enrolled"]
        await rig.send(Channel.PRESENCE, payload)
        client = (await rig.state())[0]
        assert (client is not None) == (claim == "right")
        await rig.send(Channel.RESPONSE, hello)
        assert ("not_enrolled" in rig.refused[1:]) == (claim != "right")


def claim_text_of_the_liar() -> str:
    return claim_of(b"s" * 32, CLIENT, LIAR.verifier.public_key)


async def test_a_device_that_is_enrolled_again_with_its_key_uses_the_claim_up(rig: SignedRig) -> None:
    """Else whoever finds the bundle later would pin another key with it, and raise no alarm."""
    key = DEVICE.verifier.public_key
    await rig.registered(Device(CLIENT, DeviceState.ACTIVE, 1.0, "ana", public_key=key, claim_secret=SECRET))
    await rig.send(Channel.PRESENCE, claimed(epoch=6))
    device = await rig.database.read(lambda records: records.devices.get(CLIENT))
    assert device is not None
    assert (device.public_key, device.claim_secret) == (key, None)
    assert (await rig.state())[0].epoch == 6
    finder = claimed(signer=LIAR, epoch=7)
    await rig.send(Channel.PRESENCE, finder, rig.signature(Channel.PRESENCE, finder, LIAR))
    pin = rig.engine.pins.of(CLIENT)
    assert pin is not None
    assert (pin.alarm, pin.verifier.public_key if pin.verifier else None) == (True, key)


@pytest.mark.parametrize("policy", [Policy(), Policy(require_signed=True)], ids=["as it is", "REQUIRE_SIGNED"])
async def test_an_enrolled_device_that_does_not_use_its_bundle_yet_is_unsigned(policy: Policy) -> None:
    """A fleet is enrolled before its devices are started again with their bundles: nothing stops meanwhile."""
    async with SignedRig(key=PLANE, policy=policy) as rig:
        await rig.database.write(lambda records: records.devices.delete(CLIENT))
        await rig.registered(Device(CLIENT, DeviceState.ENROLLED, 1.0, "ana", claim_secret=b"s" * 32))
        await rig.send(Channel.PRESENCE, encode(Presence(CLIENT, "online", "install", 5, 0)), ())
        client = (await rig.state())[0]
        assert (client is None) == policy.require_signed
        assert rig.refused == (["unsigned"] if policy.require_signed else [])


async def test_what_follows_the_first_presence_waits_for_the_pin() -> None:
    """The hello comes at once, while the key is being stored."""
    async with SignedRig(key=PLANE) as rig:
        await rig.database.write(lambda records: records.devices.delete(CLIENT))
        await rig.registered(Device(CLIENT, DeviceState.ENROLLED, 1.0, "ana", claim_secret=b"s" * 32))
        first = claimed()
        hello = encode(Response("h", "hello", "success", Hello("install"), epoch=5))
        rig.engine.inbox.receive(delivered(rig, Channel.PRESENCE, first, rig.signature(Channel.PRESENCE, first)))
        rig.engine.inbox.receive(delivered(rig, Channel.RESPONSE, hello, rig.signature(Channel.RESPONSE, hello)))
        await rig.settle()
        assert rig.refused == []


@pytest.mark.parametrize("policy", [Policy(), Policy(require_signed=True)], ids=["as it is", "REQUIRE_SIGNED"])
async def test_a_device_that_another_replica_enrolled_a_moment_ago_is_pinned_by_its_first_presence(
    policy: Policy,
) -> None:
    """The pins of other replicas are read each second: until then its answers would be dropped."""
    async with SignedRig(key=PLANE, policy=policy) as rig:
        await rig.database.write(lambda records: records.devices.delete(CLIENT))
        await rig.engine.pins.load()
        enrolled = Device(CLIENT, DeviceState.ENROLLED, 1.0, "ana", claim_secret=b"s" * 32)
        await rig.database.write(lambda records: records.devices.save(enrolled))
        first = claimed()
        hello = encode(Response("h", "hello", "success", Hello("install"), epoch=5))
        rig.engine.inbox.receive(delivered(rig, Channel.PRESENCE, first, rig.signature(Channel.PRESENCE, first)))
        await rig.send(Channel.RESPONSE, hello)
        pin = rig.engine.pins.of(CLIENT)
        assert pin is not None
        assert pin.verifier is not None
        assert rig.refused == []


@pytest.mark.parametrize("policy", [Policy(), Policy(require_signed=True)], ids=["as it is", "REQUIRE_SIGNED"])
async def test_a_signed_device_that_is_in_no_registry_is_taken_as_an_unsigned_one(policy: Policy) -> None:
    """The database may be a new one: with REQUIRE_SIGNED it is dropped, else it is heard, once for each message."""
    async with SignedRig(key=PLANE, policy=policy) as rig:
        await rig.database.write(lambda records: records.devices.delete(CLIENT))
        await rig.engine.pins.load()
        await rig.send(Channel.PRESENCE, claimed())
        await rig.send(Channel.RESPONSE, encode(Response("h", "hello", "success", Hello("install"), epoch=5)))
        client = (await rig.state())[0]
        assert (client is None) == policy.require_signed
        assert rig.refused == (["unsigned"] * 2 if policy.require_signed else [])


async def test_a_command_that_an_enrolled_device_did_not_obey_unsigned_is_signed_with_its_first_hello() -> None:
    """The hello is answered before the registry has applied the presence: its session is known from the pin on."""
    async with SignedRig(key=PLANE) as rig:
        await rig.database.write(lambda records: records.devices.delete(CLIENT))
        await rig.engine.pins.load()
        await rig.birth(CLIENT, default_file="/data/x")
        view = await rig.trigger()
        assert [properties for name, _, properties in rig.messenger.signed if name == CLIENT] == [()]
        await rig.registered(Device(CLIENT, DeviceState.ENROLLED, 1.0, "ana", claim_secret=b"s" * 32))
        first = claimed()
        hello = encode(Response("h", "hello", "success", Hello("install"), epoch=5))
        rig.engine.inbox.receive(delivered(rig, Channel.PRESENCE, first, rig.signature(Channel.PRESENCE, first)))
        rig.engine.inbox.receive(delivered(rig, Channel.RESPONSE, hello, rig.signature(Channel.RESPONSE, hello)))
        await rig.settle()
        _, payload, properties = rig.messenger.signed[-1]
        assert len(rig.messenger.signed) > 1
        assert read_signature(properties) is not None
        command = decode_command(payload)
        assert (command.message_id, command.session) == (view.upload.message_id, SESSION)


async def test_commands_are_signed_for_the_present_session(rig: SignedRig) -> None:
    """Also the same command again: it names the session of the latest presence, and is signed anew."""
    view = await rig.trigger()
    await rig.online(epoch=6, session="B" * 22)
    await rig.send(Channel.RESPONSE, encode(Response("h", "hello", "success", Hello("install"), epoch=6)))
    sent = [one for one in rig.messenger.signed if one[0] == CLIENT]
    sessions = [command.session for _, command in rig.messenger.sent]
    assert sessions == [SESSION, "B" * 22]
    assert {command.message_id for _, command in rig.messenger.sent} == {view.upload.message_id}
    for _, payload, properties in sent:
        signature = read_signature(properties)
        assert signature is not None
        assert PLANE.signer.verifier.verifies(signature, SignedKind.COMMAND, rig.topics.command(CLIENT), payload)


async def test_the_hello_after_a_restart_is_answered_for_the_session_that_came_before_it(rig: SignedRig) -> None:
    """The registry gathers presences for a moment; a new process of the agent obeys no command of the old session."""
    view = await rig.trigger()
    again = encode(presence(epoch=6, session="B" * 22))
    hello = encode(Response("h", "hello", "success", Hello("install"), epoch=6))
    rig.engine.inbox.receive(delivered(rig, Channel.PRESENCE, again, rig.signature(Channel.PRESENCE, again)))
    rig.engine.inbox.receive(delivered(rig, Channel.RESPONSE, hello, rig.signature(Channel.RESPONSE, hello)))
    await rig.settle()
    assert [command.message_id for _, command in rig.messenger.sent] == [view.upload.message_id] * 2
    assert [command.session for _, command in rig.messenger.sent] == [SESSION, "B" * 22]


async def test_the_first_hello_since_the_start_is_answered_for_the_session_that_came_before_it(rig: SignedRig) -> None:
    """Of a device that was started again while this control plane was away; what it has in memory begins empty."""
    sessions = ClientSessions(rig.database)
    assert await sessions.of(CLIENT) == SESSION
    for epoch, expected in ((4, SESSION), (6, "B" * 22)):
        sessions = ClientSessions(rig.database)
        sessions.hear(presence(epoch=epoch, session="B" * 22))
        assert await sessions.of(CLIENT) == expected


async def test_an_earlier_presence_does_not_bring_its_session_back(rig: SignedRig) -> None:
    await rig.online(epoch=6, session="B" * 22)
    old = encode(presence(epoch=5, sequence=9))
    rig.engine.inbox.receive(delivered(rig, Channel.PRESENCE, old, rig.signature(Channel.PRESENCE, old)))
    await rig.trigger()
    assert [command.session for _, command in rig.messenger.sent] == ["B" * 22]


async def test_a_key_that_another_replica_has_just_pinned_is_read_here() -> None:
    """Both replicas hear the first presence; the one that comes second must not ask about it again and again."""
    async with SignedRig(key=PLANE) as rig:
        await rig.registered(Device(CLIENT, DeviceState.ENROLLED, 1.0, "ana", claim_secret=SECRET))
        pinned = Device(CLIENT, DeviceState.ACTIVE, 1.0, "ana", public_key=DEVICE.verifier.public_key)
        await rig.database.write(lambda records: records.devices.save(pinned))
        first = claimed()
        rig.engine.inbox.receive(delivered(rig, Channel.PRESENCE, first, rig.signature(Channel.PRESENCE, first)))
        await rig.settle()
        pin = rig.engine.pins.of(CLIENT)
        assert pin is not None
        assert pin.state is DeviceState.ACTIVE
        assert rig.counted("message.shed") == 0


async def test_a_client_without_a_session_gets_unsigned_commands() -> None:
    async with SignedRig(key=PLANE) as rig:
        await rig.birth("till-9", default_file="/data/x")
        await rig.engine.commands.publish("till-9", Command("m", "health_check", DownloadFile()))
        assert rig.messenger.signed[-1][2] == ()


def delivered(rig: SignedRig, channel: Channel, payload: bytes, properties: object) -> Delivered:
    return Delivered(rig.topics.of(CLIENT, channel), payload, properties=properties)  # type: ignore[arg-type]


async def test_the_secret_of_a_new_bundle_is_forgotten_when_the_pinned_key_claims_it(rig: SignedRig) -> None:
    key = DEVICE.verifier.public_key
    await rig.registered(
        Device(CLIENT, DeviceState.ACTIVE, 1.0, "ana", public_key=key, pinned_at=1.0, claim_secret=SECRET)
    )
    payload = claimed(epoch=6)
    await rig.send(Channel.PRESENCE, payload)
    device = await rig.database.read(lambda records: records.devices.get(CLIENT))
    assert device is not None
    assert (device.public_key, device.claim_secret) == (key, None)
    client, _, _ = await rig.state()
    assert client.epoch == 6
    # Whoever has read the bundle proves nothing with it any more.
    await rig.send(
        Channel.PRESENCE,
        claimed(signer=LIAR, epoch=7),
        rig.signature(Channel.PRESENCE, claimed(signer=LIAR, epoch=7), LIAR),
    )
    device = await rig.database.read(lambda records: records.devices.get(CLIENT))
    assert device is not None
    assert (device.public_key, device.other_key) == (key, LIAR.verifier.public_key)
