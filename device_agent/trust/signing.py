"""What a signed agent does with its key and with the keys that it trusts.

Rule: every message that leaves is signed as it is published. Nothing that arrives is decoded before it is verified;
what does not verify is counted and never answered.
"""

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from msgspec.structs import replace

from device_agent.system_info import boot_clock
from device_agent.trust.identity import IDENTITY_FILE, open_identity
from device_agent.trust.roles import SignedBy
from device_agent.trust.sessions import Sessions
from device_agent.trust.trust_file import TrustFile
from device_agent.trust.verdict import Known, Unverified, Verdict
from schemas.messages import Command, Presence
from schemas.signing.canonical import Signature, SignedKind
from schemas.signing.claims import claim_of
from schemas.signing.ed25519 import Signer, Verifier
from schemas.signing.key_files import write_key
from schemas.signing.trust import decode_trust
from schemas.topics import FLEET_CHANNELS, Channel, Topics

_KINDS: Final[dict[Channel, SignedKind]] = {
    Channel.COMMAND: SignedKind.COMMAND,
    Channel.RESPONSE: SignedKind.RESPONSE,
    Channel.STATUS: SignedKind.STATUS,
    Channel.PRESENCE: SignedKind.PRESENCE,
    Channel.BIRTH: SignedKind.BIRTH,
}


AHEAD: Final = timedelta(minutes=10)
"""How far a command may move the ratchet before the device's clock: a leaked key would else end the other keys."""
BEHIND: Final = timedelta(days=1)
"""A clock that is further behind the ratchet was never set. More than `AHEAD`: a small step back frees no key."""


class DeviceSigning:
    """The device's key, the trusted keys, and the sessions.

    `claim_secret` is what the enrolment left, and `save_claim` writes it again. `clock` is monotonic, `wall` the time
    of the device (s since the epoch), which may be wrong.

    `properties`, `identified` and `is_own` may be called by any thread, everything else by the agent's loop.
    """

    def __init__(
        self,
        signer: Signer,
        trust_file: TrustFile,
        *,
        client_id: str,
        topics: Topics,
        claim_secret: bytes | None = None,
        save_claim: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = boot_clock,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.signer: Final = signer
        self.trust_file: Final = trust_file
        self.sessions: Final = Sessions(clock)
        self._save_claim = save_claim
        self._wall = wall
        self.unverified = 0
        """Messages since the start that were not signed by a trusted key."""
        public_key = signer.verifier.public_key
        self._claim = None if claim_secret is None else claim_of(claim_secret, client_id, public_key)
        self._topics = {
            channel: topics.every(channel) if channel in FLEET_CHANNELS else topics.of(client_id, channel)
            for channel in _KINDS
        }

    @classmethod
    def open(
        cls,
        state_dir: Path,
        client_id: str,
        topics: Topics,
        claim_secret: bytes | None = None,
        save_claim: Callable[[], None] = lambda: None,
    ) -> Self:
        """The signatures of the agent of this state folder, which has a root of trust; `TrustError` when it is bad."""
        trust_file = TrustFile.open(state_dir, topics.keys())
        return cls(
            open_identity(state_dir),
            trust_file,
            client_id=client_id,
            topics=topics,
            claim_secret=claim_secret,
            save_claim=save_claim,
        )

    @property
    def keys_version(self) -> int:
        """The version of the list of keys that is obeyed; 0 before the first."""
        return self.trust_file.trust.keys_version

    def save_again(self) -> None:
        """Write the files again, after their folder was removed; `OSError` when the disk fails."""
        self.trust_file.save()
        with contextlib.suppress(FileExistsError):
            write_key(self.trust_file.folder / IDENTITY_FILE, self.signer)
        self._save_claim()

    # What leaves.

    def properties(self, channel: Channel, payload: bytes) -> list[tuple[str, str]]:
        """The user properties of a message that is published with exactly this payload."""
        return self.signer.sign(_KINDS[channel], self._topics[channel], payload).properties()

    def identified(self, presence: Presence) -> Presence:
        """A presence with the key and the session of this device, and with what it has verified."""
        online = presence.status == "online"
        return replace(
            presence,
            key=self.signer.verifier.text,
            claim=self._claim,
            session=self.sessions.announced() if online else self.sessions.present,
            keys_version=self.keys_version,
            unverified=self.unverified,
        )

    # What arrives.

    def is_own(self, payload: bytes, signature: Signature | None) -> bool:
        """Whether a stored presence is one that this device has published."""
        topic = self._topics[Channel.PRESENCE]
        return signature is not None and self.signer.verifier.verifies(signature, SignedKind.PRESENCE, topic, payload)

    def signed_by(self, channel: Channel, payload: bytes, signature: Signature | None) -> SignedBy:
        """The trusted key that signed a message; `Unverified` when none did."""
        if signature is None:
            text = f"a {channel} has no signature"
            raise Unverified(text)
        found = self.trust_file.entry(signature.kid)
        if found is None:
            text = f"a {channel} is signed by {signature.kid}, which is unknown, revoked or expired"
            raise Unverified(text)
        entry, keys = found
        # Whoever has a leaked key dates his commands back: for him only the clock of the device ends a list. One that
        # was never set is behind every end; one that was ahead takes the list again once it is right.
        if keys.expires is not None and self._wall() > keys.expires.timestamp():
            text = (
                f"a {channel} is signed by {signature.kid}, of a list of keys that ended at {keys.expires.isoformat()}"
            )
            raise Unverified(text)
        if not Verifier.of_text(entry.public_key).verifies(signature, _KINDS[channel], self._topics[channel], payload):
            text = f"the signature of a {channel} by {signature.kid} does not verify"
            raise Unverified(text)
        return SignedBy(entry, keys, payload)

    def judge(self, command: Command, by: SignedBy, known: Known) -> Verdict:
        """What becomes of a command that is signed by a trusted key; `Unverified` for one that it may not sign.

        A command that is obeyed is remembered, and moves the ratchet.
        """
        by.require(command, known)
        session = command.session
        if self.sessions.received(session, by.digest):
            return Verdict.REPEAT
        if not self.sessions.accepts(session):
            return Verdict.REPEAT if known.is_repeated_by(command.payload) else Verdict.STALE
        if self.sessions.receive(session, by.digest):
            self.sessions.draw()
        if command.issued_at is not None:
            self.trust_file.passed(self._believed(command.issued_at, by))
        return Verdict.OBEY

    def _believed(self, issued_at: datetime, by: SignedBy) -> datetime:
        """How far a command moves the ratchet; without a clock only a key that ends does, up to its end."""
        wall = datetime.fromtimestamp(self._wall(), UTC)
        if by.ends and wall < self.trust_file.ratchet - BEHIND:
            return issued_at
        return min(issued_at, wall + AHEAD)

    def read_keys(self, payload: bytes) -> bool:
        """Take the published roots and keys; whether they bring anything new. `SchemaError` when they are refused."""
        return self.trust_file.advance(decode_trust(payload))
