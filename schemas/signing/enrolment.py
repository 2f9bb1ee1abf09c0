"""What enrolment sends: the bundle of a device, and the requests of a device for one, by a code.

Rule: shapes, and the bytes that a request signs. A bundle holds secrets: it is never logged, and a file of it is 0600.
"""

import hashlib
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from schemas.messages import MAX_ROOTS, FilePath, KeyText, Labels
from schemas.signing.documents import SignatureText, SignedDocument
from schemas.topics import CLIENT_ID_PATTERN, DEFAULT_ROOT

MAX_BUNDLE: Final = 256 * 1024
"""Bytes."""

NONCE_PATTERN: Final = r"^[A-Za-z0-9_-]{22}\Z"
"""Base64url of 16 random bytes."""

BATCH_TOKEN_PATTERN: Final = r"^[A-Za-z0-9_-]{43}\Z"  # noqa: S105 - what a token looks like
"""Base64url of 32 random bytes."""

SERIAL_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
"""What the serial number of a device looks like: as the name of a client."""

Nonce = Annotated[str, Meta(pattern=NONCE_PATTERN)]
DeviceCode = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}\Z")]
BatchToken = Annotated[str, Meta(pattern=BATCH_TOKEN_PATTERN)]
Serial = Annotated[str, Meta(pattern=SERIAL_PATTERN)]
Host = Annotated[str, Meta(min_length=1, max_length=512)]


class Bundle(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Everything that a device needs to join: settings, its account at the broker, and whom it obeys.

    `root` is the first root of trust; without one the device obeys unsigned commands, and has no `claim_secret`.
    """

    format: Literal["backhaul-bundle-v1"] = "backhaul-bundle-v1"
    client_id: Annotated[str, Meta(pattern=CLIENT_ID_PATTERN)]
    mqtt_url: Annotated[str, Meta(min_length=1, max_length=512)]
    mqtt_password: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    topic_root: str = DEFAULT_ROOT
    ca: Annotated[str, Meta(max_length=131_072)] | None = None
    """Certificates in PEM, which verify the broker and the object store."""

    root: SignedDocument | None = None
    claim_secret: KeyText | None = None
    allowed_roots: Annotated[tuple[FilePath, ...], Meta(max_length=MAX_ROOTS)] = ()
    upload_hosts: Annotated[tuple[Host, ...], Meta(max_length=64)] = ()
    file_path: FilePath | None = None
    labels: Labels = {}
    device_seed: KeyText | None = None
    """The private key that asked for this bundle. The device itself adds it; no control plane ever has it."""

    def __repr__(self) -> str:
        return f"Bundle({self.client_id!r})"


class EnrollRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A device asks to be enrolled: its public key, and a fresh X25519 key to which the bundle is sealed.

    `token` is that of a batch, and `serial` the number of the device in the list of the batch.
    """

    key: KeyText
    seal_to: KeyText
    nonce: Nonce
    signature: SignatureText
    token: BatchToken | None = None
    serial: Serial | None = None

    def __repr__(self) -> str:
        return f"EnrollRequest({self.key!r})"


class EnrollAnswer(Struct, frozen=True):
    """What the device shows, and with what it asks again; times in s."""

    device_code: DeviceCode
    user_code: str
    interval: int
    expires_in: int


class PollRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The device asks whether an operator has approved it. A `sequence` is higher than that of every poll before."""

    device_code: DeviceCode
    sequence: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    signature: SignatureText


class PollAnswer(Struct, frozen=True):
    """`sealed` is the bundle in libsodium's `crypto_box_seal`, base64url; None until it is approved."""

    interval: int
    sealed: str | None = None


def enroll_payload(seal_to: str, nonce: str, token: str | None = None, serial: str | None = None) -> bytes:
    """What an `EnrollRequest` signs, with the kind `enroll` and an empty topic. Of a token it names the digest."""
    batch = [] if token is None else [token_digest(token)]
    return " ".join(["request", seal_to, nonce, *batch, *([] if serial is None else [serial])]).encode()


def token_digest(token: str) -> str:
    """The SHA-256 of the token of a batch, as hex: it is stored and signed in place of the token."""
    return hashlib.sha256(token.encode()).hexdigest()


def poll_payload(device_code: str, sequence: int) -> bytes:
    """What a `PollRequest` signs, in the same way."""
    return f"poll {device_code} {sequence}".encode()
