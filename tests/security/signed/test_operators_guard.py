"""Whom the direct command line believes: every message of a device, altered or signed by somebody else.

Rule: nothing is connected; what a broker could deliver is delivered here.
"""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from control_plane.cli.errors import CliError, Failed, Misused
from control_plane.cli.mqtt.device_keys import DeviceKeys
from control_plane.cli.mqtt.trusting import read_fingerprint, row_of
from control_plane.cli.mqtt.verifying import DeviceGuard, Note, Standing, standing_of
from control_plane.services.ports.messenger import Delivered
from schemas.codec import encode
from schemas.messages import Presence
from schemas.signing.canonical import SignedKind, fingerprint, key_id
from schemas.signing.ed25519 import Signer
from schemas.topics import Channel, Topics
from tests.security.signed.rig import DEVICE, KINDS, LIAR, altered_fields, messages, presence
from tests.support.fakes import CLIENT

TOPICS = Topics()


def keys_in(folder: Path) -> DeviceKeys:
    return DeviceKeys(folder / "device-keys.json", TOPICS.root)


def guard_of(
    keys: DeviceKeys,
    *,
    has_key: bool = True,
    trust_first: bool = False,
    require_signed: bool | None = None,
    note: Note = lambda _: None,
) -> DeviceGuard:
    return DeviceGuard(keys, CLIENT, has_key=has_key, trust_first=trust_first, require_signed=require_signed, note=note)


@pytest.fixture
def keys(tmp_path: Path) -> DeviceKeys:
    return keys_in(tmp_path)


@pytest.fixture
def pinned(keys: DeviceKeys) -> DeviceGuard:
    """A guard that knows the device."""
    keys.pin(CLIENT, DEVICE.verifier)
    return guard_of(keys)


def delivered(
    channel: Channel, payload: bytes, signer: Signer | None = DEVICE, kind: SignedKind | None = None
) -> Delivered:
    topic = TOPICS.of(CLIENT, channel)
    signed = () if signer is None else signer.sign(kind or KINDS[channel], topic, payload).properties()
    return Delivered(topic, payload, properties=tuple(signed))


def online(signer: Signer | None = DEVICE, **more: object) -> Delivered:
    by_key = {} if signer is None else {"key": signer.verifier.text}
    unsigned = {"key": None, "session": None, "keys_version": None} if signer is None else {}
    return delivered(Channel.PRESENCE, encode(presence(**{**by_key, **unsigned, **more})), signer)


@pytest.mark.parametrize("name", ["presence", "response", "hello", "status"])
def test_every_message_of_a_pinned_device_is_taken_and_none_that_was_altered(pinned: DeviceGuard, name: str) -> None:
    channel, payload = messages("u1")[name]
    genuine = delivered(channel, payload)
    assert pinned.takes(genuine)
    forged = [delivered(channel, payload, None), delivered(channel, payload, LIAR)]
    forged += [delivered(channel, payload, DEVICE, kind) for kind in KINDS.values() if kind is not KINDS[channel]]
    forged += [Delivered(genuine.topic, one, properties=genuine.properties) for one in altered_fields(payload)]
    # On another topic of the same device, and with one property twice.
    forged.append(Delivered(genuine.topic, payload, properties=(*genuine.properties, genuine.properties[0])))
    others = [one for one in KINDS if one is not channel]
    forged += [Delivered(TOPICS.of(CLIENT, one), payload, properties=genuine.properties) for one in others]
    assert not any(pinned.takes(one) for one in forged)
    assert pinned.unverified == len(forged)
    assert pinned.takes(genuine)
    assert "messages" in pinned.explained("over")


def test_a_message_of_another_client_is_not_taken(pinned: DeviceGuard) -> None:
    payload = encode(presence())
    topic = TOPICS.presence("till-2")
    signed = DEVICE.sign(SignedKind.PRESENCE, topic, payload).properties()
    assert not pinned.takes(Delivered(topic, payload, properties=tuple(signed)))
    assert not pinned.takes(Delivered("elsewhere", payload))


def test_the_session_is_that_of_the_latest_presence(pinned: DeviceGuard) -> None:
    """A broker that delivers an older presence again changes nothing."""
    assert pinned.takes(online(epoch=5, session="A" * 22))
    assert pinned.takes(online(epoch=6, session="B" * 22))
    assert pinned.takes(online(epoch=5, session="A" * 22))
    assert pinned.presence is not None
    assert pinned.presence.session == "B" * 22


def test_an_unknown_key_ends_the_command_with_what_to_do(keys: DeviceKeys) -> None:
    guard = guard_of(keys)
    assert not guard.takes(online())
    with pytest.raises(Failed, match=f"--trust-first {CLIENT}` takes it as it is") as caught:
        guard.check()
    digits = fingerprint(DEVICE.verifier.public_key).replace(" ", "")
    assert f"mqtt trust --fingerprint {digits} {CLIENT}" in str(caught.value)
    assert keys.all() == ()
    with pytest.raises(Failed):
        asyncio.run(guard.first_presence())


def test_nothing_else_of_an_unknown_key_is_taken(keys: DeviceKeys) -> None:
    guard = guard_of(keys)
    for name in ("response", "hello", "status"):
        assert not guard.takes(delivered(*messages("u1")[name]))
    assert guard.unverified == 3


def test_trust_first_pins_the_first_key_and_no_second_one(keys: DeviceKeys) -> None:
    guard = guard_of(keys, trust_first=True)
    # It names a key that has not signed it.
    lie = delivered(Channel.PRESENCE, encode(presence(key=DEVICE.verifier.text)), LIAR)
    assert not guard.takes(lie)
    assert keys.all() == ()
    assert guard.takes(online())
    found = keys.of_client(CLIENT)
    assert found is not None
    assert found.public_key == DEVICE.verifier.text
    assert not guard.takes(online(LIAR, epoch=9))
    again = guard_of(keys, trust_first=True)
    assert not again.takes(online(LIAR))
    assert keys.of_client(CLIENT) == found


def test_another_key_than_the_pinned_one_is_explained(pinned: DeviceGuard) -> None:
    assert not pinned.takes(online(LIAR))
    pinned.check()
    text = pinned.explained("no sign of life")
    assert fingerprint(LIAR.verifier.public_key) in text
    assert "device show" in text


def test_a_device_that_never_had_a_key_is_taken_unless_all_must_be_signed(keys: DeviceKeys) -> None:
    notes: list[str] = []
    guard = guard_of(keys, has_key=False, note=notes.append)
    assert guard.takes(online(None))
    assert guard.takes(online(None))
    guard.check()
    assert len(notes) == 1
    assert "signs nothing" in notes[0]
    strict = guard_of(keys, has_key=False, require_signed=True)
    assert not strict.takes(online(None))
    assert strict.unverified == 1


@pytest.mark.parametrize("trust_first", [False, True])
def test_an_operator_with_a_key_is_not_negotiated_down(keys: DeviceKeys, *, trust_first: bool) -> None:
    """A broker that takes the signature away would be believed, and get commands with URLs that nothing protects."""
    guard = guard_of(keys, trust_first=trust_first)
    assert not guard.takes(online(None))
    assert not guard.takes(delivered(*messages("u1")["response"], None))
    assert (guard.unverified, guard.presence) == (2, None)
    with pytest.raises(Failed, match="REQUIRE_SIGNED=false"):
        asyncio.run(guard.first_presence())
    notes: list[str] = []
    moving = guard_of(keys, require_signed=False, note=notes.append)
    assert moving.takes(online(None))
    moving.check()
    assert notes == []


def test_a_signed_device_and_no_key_to_sign_with_is_a_mistake_of_the_caller(keys: DeviceKeys) -> None:
    keys.pin(CLIENT, DEVICE.verifier)
    guard = guard_of(keys, has_key=False)
    assert guard.takes(online())
    with pytest.raises(Misused, match="OPERATOR_KEY_FILE"):
        guard.check()


@pytest.mark.parametrize("wrong", [b"", b"{", b"[1]", encode(Presence("other", "online", "i", 1, 1))])
def test_no_content_is_an_error_of_the_program(keys: DeviceKeys, pinned: DeviceGuard, wrong: bytes) -> None:
    for channel in KINDS:
        for signer in (None, DEVICE, LIAR):
            pinned.takes(delivered(channel, wrong, signer))
            guard_of(keys_in(keys.path.parent / "none"), trust_first=True).takes(delivered(channel, wrong, signer))
    assert pinned.presence is None


def test_watch_has_the_standing_of_each_message() -> None:
    known = DEVICE.verifier
    assert standing_of(known, Channel.PRESENCE, online()) is Standing.VERIFIED
    assert standing_of(known, Channel.PRESENCE, online(None)) is Standing.REFUSED
    assert standing_of(known, Channel.PRESENCE, online(LIAR)) is Standing.REFUSED
    assert standing_of(None, Channel.PRESENCE, online()) is Standing.UNKNOWN_KEY
    assert standing_of(None, Channel.PRESENCE, online(None)) is Standing.UNSIGNED


def test_the_operator_file_is_private_and_tells_fleets_apart(tmp_path: Path) -> None:
    keys = DeviceKeys(tmp_path / "new" / "keys.json", TOPICS.root)
    keys.pin(CLIENT, DEVICE.verifier)
    other = DeviceKeys(keys.path, "other/v1")
    other.pin(CLIENT, LIAR.verifier)
    assert keys.path.stat().st_mode & 0o777 == 0o600
    (mine,), (theirs,) = keys.all(), other.all()
    assert (mine.public_key, theirs.public_key) == (DEVICE.verifier.text, LIAR.verifier.text)
    assert row_of(mine)["fingerprint"] == fingerprint(DEVICE.verifier.public_key)
    assert mine.verifier.kid == key_id(DEVICE.verifier.public_key)
    keys.pin(CLIENT, LIAR.verifier)
    assert [one.public_key for one in keys.all()] == [LIAR.verifier.text]
    keys.remove(CLIENT)
    keys.remove(CLIENT)
    assert keys.all() == ()
    assert other.all() == (theirs,)


def test_two_commands_that_pin_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    names = [f"till-{n}" for n in range(16)]
    threads = [threading.Thread(target=keys_in(tmp_path).pin, args=(name, DEVICE.verifier)) for name in names]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert {one.client_id for one in keys_in(tmp_path).all()} == set(names)


@pytest.mark.parametrize("content", ["", "{}", '{"format":"backhaul-device-keys-v2"}', '{"format":'])
def test_an_operator_file_that_is_damaged_is_named_and_not_replaced(keys: DeviceKeys, content: str) -> None:
    keys.path.write_text(content)
    for act in (keys.all, lambda: keys.pin(CLIENT, DEVICE.verifier)):
        with pytest.raises(Misused, match=r"device-keys\.json"):
            act()
    assert keys.path.read_text() == content


def test_an_operator_file_that_others_may_change_is_refused(keys: DeviceKeys) -> None:
    keys.pin(CLIENT, DEVICE.verifier)
    os.chmod(keys.path, 0o620)  # noqa: PTH101 - as a shell does it
    with pytest.raises(Misused, match="chmod 600"):
        keys.all()


def test_without_a_home_nothing_is_pinned_and_nothing_else_fails() -> None:
    keys = DeviceKeys(None, TOPICS.root)
    assert keys.all() == ()
    guard = guard_of(keys, trust_first=True)
    assert not guard.takes(online())
    with pytest.raises(CliError, match="DEVICE_KEYS_FILE"):
        guard.check()


@pytest.mark.parametrize("wrong", ["", "abc", "g" * 32, "0" * 31, "0" * 33])
def test_a_fingerprint_has_to_be_whole(wrong: str) -> None:
    with pytest.raises(Misused, match="32 hex digits"):
        read_fingerprint(wrong)
    grouped = fingerprint(DEVICE.verifier.public_key)
    assert read_fingerprint(grouped.replace(" ", "").upper()) == grouped
