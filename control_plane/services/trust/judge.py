"""Who sent a message: what is taken from a client, what is dropped, and why.

Rule: answers at once and from memory, before anything decodes the message. What does not verify is counted and
dropped, and never answered.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from control_plane.domain.devices import DeviceState
from control_plane.services.ports.messenger import Delivered
from control_plane.services.trust.commander import Commander
from schemas.errors import SchemaError
from schemas.messages import Presence
from schemas.signing.canonical import PUBLIC_KEY_SIZE, Signature, SignedKind, from_text, read_signature
from schemas.signing.claims import claim_matches
from schemas.signing.ed25519 import Verifier
from schemas.topics import Channel

if TYPE_CHECKING:
    from control_plane.services.devices.pins import Pin
    from schemas.signing.trust import Trust


class Refusal(StrEnum):
    """Why a message was dropped; the label of its counter."""

    UNSIGNED = "unsigned"
    BAD_SIGNATURE = "bad_signature"
    NOT_ENROLLED = "not_enrolled"
    REVOKED = "revoked"


class Reception(StrEnum):
    """What a message is, besides refused.

    `INTRODUCTION` may be the first of a key, or another key's. `NEWCOMER` is signed under a name without a pin: it may
    be of a device that another replica enrolled a moment ago.
    """

    ACCEPTED = "accepted"
    INTRODUCTION = "introduction"
    NEWCOMER = "newcomer"


class PinReader(Protocol):
    """The pins, as the judge reads them (`services.devices.pins`)."""

    def of(self, client_id: str) -> "Pin | None":
        """The pin of a client; None for one that was never enrolled."""

    def is_revoked_key(self, public_key: bytes) -> bool:
        """Whether this key was revoked, under any name."""


_KINDS: Final[Mapping[Channel, SignedKind]] = {
    Channel.COMMAND: SignedKind.COMMAND,
    Channel.RESPONSE: SignedKind.RESPONSE,
    Channel.STATUS: SignedKind.STATUS,
    Channel.PRESENCE: SignedKind.PRESENCE,
}


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges what arrives. `trust` gives the list of keys that the fleet obeys, None before there is one."""

    pins: PinReader
    trust: Callable[[], "Trust | None"]
    require_signed: bool = False

    def judge(self, client_id: str, channel: Channel, message: Delivered) -> Reception | Refusal:
        """What this message of this client is."""
        pin = self.pins.of(client_id)
        signature = read_signature(message.properties)
        if pin is None:
            return self.without_pin() if signature is None else Reception.NEWCOMER
        if pin.state is DeviceState.REVOKED:
            return Refusal.REVOKED
        if pin.state is DeviceState.ENROLLED and signature is None:
            # It does not use its bundle yet, and is unsigned until it does; unless a device of this name has signed.
            return Refusal.UNSIGNED if pin.has_signed else self.without_pin()
        if channel is Channel.COMMAND:
            return self._command(signature, message)
        if pin.verifier is None:
            enrolled = pin.state is DeviceState.ENROLLED and channel is Channel.PRESENCE
            return Reception.INTRODUCTION if enrolled else Refusal.NOT_ENROLLED
        if signature is None:
            return Refusal.UNSIGNED
        if _verifies(pin.verifier, signature, channel, message):
            return Reception.ACCEPTED
        # With the kid of the pinned key it is no other key's: it was altered.
        other = channel is Channel.PRESENCE and signature.kid != pin.verifier.kid
        return Reception.INTRODUCTION if other else Refusal.BAD_SIGNATURE

    def has_key(self, client_id: str) -> bool:
        """Whether the key of this client is pinned: it signs what it sends."""
        pin = self.pins.of(client_id)
        return pin is not None and pin.verifier is not None

    def without_pin(self) -> Reception | Refusal:
        """What a message of a client is that is in no registry."""
        return Refusal.UNSIGNED if self.require_signed else Reception.ACCEPTED

    def introduces(self, presence: Presence, message: Delivered) -> bool:
        """Whether the key that this presence carries signed it, and is not revoked."""
        signature = read_signature(message.properties)
        if presence.key is None or signature is None:
            return False
        try:
            verifier = Verifier.of_text(presence.key)
        except SchemaError:
            return False
        return not self.pins.is_revoked_key(verifier.public_key) and _verifies(
            verifier, signature, Channel.PRESENCE, message
        )

    def uses_claim(self, presence: Presence) -> bool:
        """Whether the pinned key signed this presence, and it brings the claim that still waits for a first presence.

        The device was enrolled again and kept its key. A claim that stayed would let anyone who finds that bundle later
        pin another key, without an alarm.
        """
        pin = self.pins.of(presence.client_id)
        if pin is None or pin.verifier is None or pin.claim_secret is None or presence.claim is None:
            return False
        key = pin.verifier
        return presence.key == key.text and claim_matches(
            presence.claim, pin.claim_secret, presence.client_id, key.public_key
        )

    def has_revoked_key(self, presence: Presence) -> bool:
        """Whether the key of this presence is revoked: it is refused under any name."""
        if presence.key is None:
            return False
        return self.pins.is_revoked_key(from_text(presence.key, PUBLIC_KEY_SIZE))

    def commander(self, client_id: str, message: Delivered) -> Commander | None:
        """Who signed a command of another sender that was accepted; None for a client that obeys unsigned ones."""
        signature, trust = read_signature(message.properties), self.trust()
        if self.pins.of(client_id) is None or signature is None or trust is None or trust.keys is None:
            return None
        entry = trust.entry(signature.kid)
        return None if entry is None else Commander(entry, trust.keys)

    def _command(self, signature: Signature | None, message: Delivered) -> Reception | Refusal:
        """A command of another sender to a client that obeys signed ones alone: is it one that the client obeys?"""
        if signature is None:
            return Refusal.UNSIGNED
        trust = self.trust()
        entry = None if trust is None else trust.entry(signature.kid)
        if entry is None or not _verifies(Verifier.of_text(entry.public_key), signature, Channel.COMMAND, message):
            return Refusal.BAD_SIGNATURE
        return Reception.ACCEPTED


def _verifies(verifier: Verifier, signature: Signature, channel: Channel, message: Delivered) -> bool:
    return verifier.verifies(signature, _KINDS[channel], message.topic, message.payload)
