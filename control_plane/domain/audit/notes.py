"""Signed notes (C2SP signed-note): a text, and under it lines with Ed25519 signatures; and the checkpoints in them.

Rule: what is signed begins with the origin of a chain, so it is no message of the wire.
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Final, Self

from control_plane.domain.errors import DomainError
from schemas.signing.ed25519 import Signer, Verifier

ED25519: Final = 1
"""The type of key: https://c2sp.org/signed-note"""

_ID: Final = 4
_DASH: Final = "\u2014 "


class BadNote(DomainError):
    """A note, a key or a checkpoint that cannot be read, or has a wrong signature."""


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """Checks notes of one key. `name` has no space and no plus; `key` is the public key, 32 bytes."""

    name: str
    key: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `name+id+base64`, as `NoteSigner.verifier_key` is; `BadNote`."""
        name, _, rest = text.strip().partition("+")
        identity, _, encoded = rest.partition("+")
        try:
            blob = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            message = f"{text!r} is no key of signed notes"
            raise BadNote(message) from error
        found = cls(name, blob[1:])
        if len(blob) != 33 or blob[0] != ED25519 or not name or found.identity.hex() != identity:  # noqa: PLR2004
            message = f"{text!r} is no key of signed notes"
            raise BadNote(message)
        return found

    @property
    def identity(self) -> bytes:
        """Four bytes by which a signature names its key."""
        return hashlib.sha256(f"{self.name}\n".encode() + bytes([ED25519]) + self.key).digest()[:_ID]

    @property
    def text(self) -> str:
        """`name+id+base64`: what a person pins."""
        return f"{self.name}+{self.identity.hex()}+{base64.b64encode(bytes([ED25519]) + self.key).decode()}"

    def verify(self, note: str) -> str:
        """The text of the note; `BadNote` unless this key signed it."""
        text, signatures = _split(note)
        for name, blob in signatures:
            if name != self.name or blob[:_ID] != self.identity:
                continue
            if not Verifier(self.key).verifies_bytes(blob[_ID:], text.encode()):
                message = f"the signature of {self.name} is wrong"
                raise BadNote(message)
            return text
        message = f"it is not signed by {self.name}+{self.identity.hex()}"
        raise BadNote(message)


class NoteSigner:
    """Signs notes with an Ed25519 key, under a name without space and plus."""

    def __init__(self, name: str, signer: Signer) -> None:
        self._signer = signer
        self.verifier = NoteVerifier(name, signer.verifier.public_key)

    def sign(self, text: str) -> str:
        """The note; `text` ends with a line break."""
        blob = self.verifier.identity + self._signer.sign_bytes(text.encode())
        return f"{text}\n{_DASH}{self.verifier.name} {base64.b64encode(blob).decode()}\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a chain has come: `size` records, the last one with the hash `head` (hex). `origin` names the chain."""

    origin: str
    size: int
    head: str
    time: str

    @property
    def text(self) -> str:
        """The text that is signed: origin, size, head in base64, and the time, a line each."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(bytes.fromhex(self.head)).decode()}\ntime {self.time}\n"

    @property
    def writer(self) -> str:
        """The chain's writer: what is after the last slash of the origin."""
        return self.origin.rpartition("/")[2]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the text of a note; `BadNote`."""
        try:
            origin, size, head, time = text.split("\n")[:4]
            return cls(origin, int(size), base64.b64decode(head, validate=True).hex(), time.removeprefix("time "))
        except ValueError as error:
            message = "it is no checkpoint"
            raise BadNote(message) from error


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """The text, and each signature's name and bytes; `BadNote`."""
    text, gap, rest = note.rpartition("\n\n")
    if not gap:
        message = "it is no signed note"
        raise BadNote(message)
    signatures = []
    for line in rest.splitlines():
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        try:
            signatures.append((name, base64.b64decode(encoded, validate=True)))
        except ValueError as error:
            message = "it has a signature that is not base64"
            raise BadNote(message) from error
    return f"{text}\n", signatures
