"""Enrolment for tests: a root of trust, accounts in memory, and a device that asks by code.

Rule: keys and signatures are real.
"""

from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from nacl import bindings

from control_plane.services.devices.requests import EnrollmentRequests
from control_plane.services.devices.service import DeviceService, Reachable
from control_plane.services.engine import Engine
from schemas.signing.canonical import SignedKind, fingerprint, to_text
from schemas.signing.documents import RootDocument, SignedDocument
from schemas.signing.ed25519 import Signer
from schemas.signing.enrolment import Bundle, EnrollRequest, PollRequest, enroll_payload, poll_payload
from schemas.signing.trust import sign_document
from schemas.topics import Topics

ROOT_KEY: Final = Signer(b"r" * 32)
PLACE: Final = Reachable("mqtts://broker.example.com:8883", "fleet/v1")


def a_root(signer: Signer = ROOT_KEY, topics: Topics | None = None) -> SignedDocument:
    """A root of trust of one key."""
    issued_at = datetime(2025, 11, 1, tzinfo=UTC)
    document = RootDocument(version=1, threshold=1, keys=(signer.verifier.text,), issued_at=issued_at)
    return sign_document(document, (topics or Topics()).keys(), [signer])


@dataclass
class AccountsInMemory:
    """The port `DeviceAccounts`: the last password of each account."""

    passwords: dict[str, str] = field(default_factory=dict)
    given: int = 0

    async def give(self, client_id: str) -> str:
        """Another one each time."""
        self.given += 1
        self.passwords[client_id] = f"password-{self.given}"
        return self.passwords[client_id]

    async def keep(self, client_id: str) -> bool:
        """Whether it is there."""
        return client_id in self.passwords

    async def remove(self, client_id: str) -> None:
        """Forget it."""
        self.passwords.pop(client_id, None)


def device_service(engine: Engine, held: AccountsInMemory | None = None, **others: object) -> DeviceService:
    """The use cases of devices over an engine, with the accounts `held`; `accounts=None` for none."""
    given: dict[str, Any] = {"root": a_root, "log": lambda *_: None, "accounts": held or AccountsInMemory(), **others}
    return DeviceService(
        database=engine.ports.database,
        clock=engine.clock,
        pins=engine.pins,
        clearer=engine.clearer,
        uploads=engine.upload_service,
        place=PLACE,
        **given,
    )


def enrollment_requests(engine: Engine, devices: DeviceService) -> EnrollmentRequests:
    """What devices ask by code."""
    return EnrollmentRequests(engine.ports.database, engine.clock, lambda *_: None, engine.pins, devices)


class AskingDevice:
    """A device that asks for a bundle by code."""

    def __init__(self, seed: bytes = b"d" * 32) -> None:
        self.signer = Signer(seed)
        self.seal_to, self._open_with = bindings.crypto_box_keypair()
        self.sequence = 0

    @property
    def fingerprint(self) -> str:
        """As its screen shows it."""
        return fingerprint(self.signer.verifier.public_key)

    def ask(self, token: str | None = None, serial: str | None = None, **changes: str) -> EnrollRequest:
        """A request; with changes after it was signed. `token` is that of a batch."""
        seal_to, nonce = to_text(self.seal_to), to_text(bytes(16))
        signature = to_text(
            self.signer.sign(SignedKind.ENROLL, "", enroll_payload(seal_to, nonce, token, serial)).value
        )
        whole = EnrollRequest(self.signer.verifier.text, seal_to, nonce, signature, token, serial)
        return msgspec.structs.replace(whole, **changes)

    def poll(self, device_code: str) -> PollRequest:
        """The next poll."""
        self.sequence += 1
        payload = poll_payload(device_code, self.sequence)
        return PollRequest(device_code, self.sequence, to_text(self.signer.sign(SignedKind.ENROLL, "", payload).value))

    def open(self, sealed: str) -> Bundle:
        """The bundle; an error of libsodium for one that is sealed to another device."""
        data = urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
        return msgspec.json.decode(bindings.crypto_box_seal_open(data, self.seal_to, self._open_with), type=Bundle)
