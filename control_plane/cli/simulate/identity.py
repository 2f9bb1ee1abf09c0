"""The identity of a simulated device in a fleet that signs: it signs what it publishes, and obeys what a key signed.

Rule: as an agent, and shorter. Of a command it checks the signature, the session and the role of the key; the globs and
owners of keys are checked by real agents alone.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.cli.simulate.packets import Publish, UserProperties
from schemas.errors import SchemaError
from schemas.messages import CloseUpload, Command, DownloadFile, GrantParts
from schemas.signing.canonical import SignedKind, read_signature, to_text
from schemas.signing.claims import claim_of
from schemas.signing.documents import KeyRole, SignedDocument
from schemas.signing.ed25519 import Signer, Verifier
from schemas.signing.trust import Trust, advance, decode_trust, trust_first
from schemas.topics import Channel

_SESSION_SIZE: Final = 16
_KINDS: Final = {
    Channel.PRESENCE: SignedKind.PRESENCE,
    Channel.RESPONSE: SignedKind.RESPONSE,
    Channel.STATUS: SignedKind.STATUS,
}


class FleetTrust:
    """What all simulated devices of a process trust: one copy, since each of them reads the same documents."""

    def __init__(self, root: SignedDocument, topic: str) -> None:
        """`topic` is that of the keys; `Untrusted` for what is no first root."""
        self.trust: Trust = trust_first(root, topic)
        self._read = b""

    def take(self, payload: bytes) -> None:
        """Trust a later list of keys; `SchemaError` for one that is not signed by enough keys, or is older."""
        if payload != self._read:
            self.trust = advance(self.trust, decode_trust(payload))
            self._read = payload


class SimulatedIdentity:
    """The key and the session of one device."""

    def __init__(self, client_id: str, signer: Signer, claim_secret: bytes, fleet: FleetTrust) -> None:
        self._signer = signer
        self._fleet = fleet
        self._claim = claim_of(claim_secret, client_id, signer.verifier.public_key)
        self.unverified = 0
        """Messages that no key of the list had signed."""
        self.session = ""
        self.begin_session()

    def facts(self) -> dict[str, str | int]:
        """What a presence has about it."""
        return {
            "key": self._signer.verifier.text,
            "claim": self._claim,
            "session": self.session,
            "keys_version": self._fleet.trust.keys_version,
            "unverified": self.unverified,
        }

    def begin_session(self) -> None:
        """Another connection: commands of the one before are refused."""
        self.session = to_text(secrets.token_bytes(_SESSION_SIZE))

    def sign(self, channel: Channel, topic: str, payload: bytes) -> UserProperties:
        """The two user properties of a message."""
        return self._signer.sign(_KINDS[channel], topic, payload).properties()

    def take_keys(self, message: Publish) -> None:
        """Read the list of keys; one that is not to be trusted is counted."""
        try:
            self._fleet.take(message.payload)
        except SchemaError:
            self.unverified += 1

    def roles(self, kind: SignedKind, message: Publish) -> Sequence[KeyRole]:
        """What the key that signed the message may sign; nothing, and counted, for one that no key of the list did."""
        signature = read_signature(message.properties)
        entry = None if signature is None else self._fleet.trust.entry(signature.kid)
        if signature is not None and entry is not None:
            verifier = Verifier.of_text(entry.public_key)
            if verifier.verifies(signature, kind, message.topic, message.payload):
                return entry.roles
        self.unverified += 1
        return ()

    def obeys(self, command: Command, roles: Sequence[KeyRole]) -> bool:
        """Whether a key with these roles may give this command; else it is counted."""
        payload = command.payload
        needed = {KeyRole.TRANSFER if isinstance(payload, GrantParts | CloseUpload) else KeyRole.COMMAND}
        if isinstance(payload, DownloadFile) and payload.pregranted:
            needed.add(KeyRole.TRANSFER)
        allowed = needed <= set(roles)
        self.unverified += not allowed
        return allowed


@dataclass(frozen=True, slots=True)
class Account:
    """What one device has for itself: its password at the broker, and its identity in a fleet that signs."""

    password: str | None = None
    identity: SimulatedIdentity | None = None


NO_ACCOUNT: Final = Account()
"""Of a device that shares the password of all, and signs nothing."""
