"""Which messages the direct command line takes: of a pinned key those that it signed, of an unknown key none.

Rule: answers before anything decodes a message for its content. What does not verify is counted, and never obeyed.
"""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from control_plane.cli.errors import CliError, Failed, Misused
from control_plane.cli.mqtt.device_keys import DeviceKeys
from control_plane.cli.program import command_line, program
from control_plane.services.ports.messenger import Delivered
from schemas.codec import decode
from schemas.errors import SchemaError
from schemas.messages import Presence
from schemas.signing.canonical import Signature, SignedKind, fingerprint, read_signature
from schemas.signing.ed25519 import Verifier
from schemas.topics import Channel, Topics

Note = Callable[[str], None]

KINDS: Final = {
    Channel.RESPONSE: SignedKind.RESPONSE,
    Channel.STATUS: SignedKind.STATUS,
    Channel.PRESENCE: SignedKind.PRESENCE,
}
"""What a device publishes."""

PRESENCE_WAIT: Final = 35.0
"""Seconds to wait for a client's presence: it publishes one every 30 (protocol.md section 2)."""


class Standing(StrEnum):
    """What the signature of a device's message is worth to an operator."""

    VERIFIED = "verified"
    UNSIGNED = "unsigned"
    """Without a signature, of a device without a pinned key."""
    UNKNOWN_KEY = "unknown_key"
    """With a signature, of a device without a pinned key."""
    REFUSED = "refused"
    """Of a device whose key is pinned, and not signed by it: forged or altered, or the device has another key now."""


def standing_of(pinned: Verifier | None, channel: Channel, message: Delivered) -> Standing:
    """The standing of a device's message; `pinned` is the key of the device, None when none is pinned."""
    signature = read_signature(message.properties)
    if pinned is None:
        return Standing.UNSIGNED if signature is None else Standing.UNKNOWN_KEY
    verified = signature is not None and _verifies(pinned, signature, channel, message)
    return Standing.VERIFIED if verified else Standing.REFUSED


def introduced(client_id: str, message: Delivered) -> tuple[Presence, Verifier] | None:
    """A presence and the key in it that signed it; None for one that no key in it signed."""
    signature = read_signature(message.properties)
    try:
        presence = decode(Presence, message.payload)
        if signature is None or presence.key is None or presence.client_id != client_id:
            return None
        verifier = Verifier.of_text(presence.key)
    except SchemaError:
        return None
    return (presence, verifier) if _verifies(verifier, signature, Channel.PRESENCE, message) else None


class DeviceGuard:
    """Judges every message of one device that a command receives.

    `trust_first` pins the key of the first presence if none is pinned. `has_key`: this operator has a key of their own.
    `require_signed`: whether nothing unsigned is taken, whatever is known of the device; with None an operator without
    a key takes it, with a note. One who has a key does not: a broker could take away every signature.
    """

    def __init__(
        self,
        keys: DeviceKeys,
        client_id: str,
        *,
        has_key: bool,
        trust_first: bool = False,
        require_signed: bool | None = None,
        note: Note = lambda _: None,
    ) -> None:
        self.unverified = 0
        """Messages that did not verify, and were dropped."""
        self.presence: Presence | None = None
        """The latest presence that was taken."""
        self._keys = keys
        self._client_id = client_id
        self._topics = Topics(keys.topic_root)
        self._has_key = has_key
        self._trust_first = trust_first
        self._require_signed = has_key if require_signed is None else require_signed
        self._notes_unsigned = require_signed is None
        self._note = note
        pinned = keys.of_client(client_id)
        self._pinned = None if pinned is None else pinned.verifier
        self._problem: CliError | None = None
        self._other: Verifier | None = None
        self._news = asyncio.Event()

    @property
    def is_pinned(self) -> bool:
        """Whether the key of the device is known."""
        return self._pinned is not None

    @property
    def expects_presence(self) -> bool:
        """Whether a command has to know the device first: its session, or that it is signed at all."""
        return self._has_key or self._trust_first or self._require_signed or self.is_pinned

    def takes(self, message: Delivered) -> bool:
        """Whether this message may have an effect. Never raises: `check` raises what this has found."""
        try:
            topic = self._topics.parse(message.topic)
        except SchemaError:
            return False
        if topic.client_id != self._client_id or not message.payload:
            return False
        if topic.channel not in KINDS:
            # Of other operators, to the device: it judges them itself.
            return True
        taken = self._judged(topic.channel, message)
        if taken and topic.channel is Channel.PRESENCE:
            self._hear(message)
        return taken

    def check(self) -> None:
        """Raise what ends the command: an unknown key, or a signed device and no key to sign with."""
        if self._problem is not None:
            raise self._problem
        if self.presence is not None and self.presence.session is not None and not self._has_key:
            text = (
                f"{self._client_id} obeys signed commands alone: name the file of your key in OPERATOR_KEY_FILE "
                f"(`{program()} keys add-operator` makes one)"
            )
            raise Misused(text)

    async def first_presence(self) -> Presence:
        """The device's presence, once one was taken; errors of `check`, `Failed` after `PRESENCE_WAIT`."""
        try:
            async with asyncio.timeout(PRESENCE_WAIT):
                while self.presence is None:
                    self.check()
                    await self._news.wait()
                    self._news.clear()
        except TimeoutError as error:
            text = (
                f"no sign of life of {self._client_id} within {PRESENCE_WAIT:.0f} s: it is offline, or never connected"
            )
            raise Failed(self.explained(text)) from error
        self.check()
        return self.presence

    def explained(self, text: str) -> str:
        """The text of a failure, and what was dropped meanwhile, with what to do."""
        if self._other is not None:
            return (
                f"{text}; {self.unverified} messages were dropped: {self._client_id} signs with another key, "
                f"{fingerprint(self._other.public_key)}, than the pinned one. If it was enrolled anew, and "
                f"`{_shown(self._client_id)}` has this fingerprint: `{self._pin_step(self._other)}`"
            )
        if self.unverified:
            return f"{text}; {self.unverified} messages without its signature, or altered ones, were dropped"
        return text

    def _judged(self, channel: Channel, message: Delivered) -> bool:
        match standing_of(self._pinned, channel, message):
            case Standing.VERIFIED:
                return True
            case Standing.UNSIGNED:
                return self._takes_unsigned(channel)
            case Standing.UNKNOWN_KEY if channel is Channel.PRESENCE:
                return self._meets(message)
            case _:
                return self._drop(channel, message)

    def _takes_unsigned(self, channel: Channel) -> bool:
        if self._require_signed:
            self.unverified += 1
            if channel is Channel.PRESENCE:
                self._stop(self._not_signed())
            return False
        if self._notes_unsigned:
            self._notes_unsigned = False
            self._note(f"{self._client_id} signs nothing: whoever controls the broker may have sent what it answers")
        return True

    def _meets(self, message: Delivered) -> bool:
        """Take the first presence of a key that is not known, if the operator wants that."""
        known = introduced(self._client_id, message)
        if known is None:
            self.unverified += 1
            return False
        _, verifier = known
        if not self._trust_first:
            self._stop(self._unknown(verifier))
            return False
        try:
            self._keys.pin(self._client_id, verifier)
        except Misused as error:
            self._stop(error)
            return False
        self._pinned = verifier
        shown = f"the key {fingerprint(verifier.public_key)} of {self._client_id} is pinned in {self._keys.path}"
        self._note(f"{shown}; `{_shown(self._client_id)}` must have this fingerprint")
        return True

    def _drop(self, channel: Channel, message: Delivered) -> bool:
        self.unverified += 1
        if self._pinned is not None and channel is Channel.PRESENCE:
            known = introduced(self._client_id, message)
            if known is not None and known[1].public_key != self._pinned.public_key:
                self._other = known[1]
        return False

    def _hear(self, message: Delivered) -> None:
        try:
            presence = decode(Presence, message.payload)
        except SchemaError:
            return
        if presence.client_id != self._client_id:
            return
        before = self.presence
        # Of another installation, or from the beginning: what the broker stored is no older than what it sends later.
        same = before is not None and before.install_id == presence.install_id
        if before is None or not same or (before.epoch, before.sequence) <= (presence.epoch, presence.sequence):
            self.presence = presence
            self._news.set()

    def _stop(self, problem: CliError) -> None:
        self._problem = problem
        self._news.set()

    def _not_signed(self) -> CliError:
        name = self._client_id
        return Failed(
            f"{name} does not sign what it sends, or the broker takes the signatures away: enrol it, or set "
            "REQUIRE_SIGNED=false to take unsigned messages of devices whose key is not pinned"
        )

    def _unknown(self, verifier: Verifier) -> CliError:
        name = self._client_id
        return Failed(
            f"{name} signs with a key that is not known here, {fingerprint(verifier.public_key)}: if "
            f"`{_shown(name)}` has this fingerprint, `{self._pin_step(verifier)}`; "
            f"`{command_line('mqtt', 'files', '--trust-first', about=[name])}` takes it as it is"
        )

    def _pin_step(self, verifier: Verifier) -> str:
        digits = fingerprint(verifier.public_key).replace(" ", "")
        return command_line("mqtt", "trust", "--fingerprint", digits, about=[self._client_id])


def _shown(client_id: str) -> str:
    return command_line("device", "show", about=[client_id])


def _verifies(verifier: Verifier, signature: Signature, channel: Channel, message: Delivered) -> bool:
    return verifier.verifies(signature, KINDS[channel], message.topic, message.payload)
