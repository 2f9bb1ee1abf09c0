"""The DSSE envelope (secure-systems-lab/dsse, version 1) of a receipt: a payload, and who signed it.

Rule: what is signed is `pae` of the type and the payload, never the payload alone; base64 is the standard one, in its
one form.

>>> pae(b"hello world", "http://example.com/HelloWorld")
b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
"""

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta, Struct, field

from schemas.errors import SchemaError

if TYPE_CHECKING:
    from schemas.receipts.statement import Statement

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_SIGNATURES: Final = 2
"""The device's and the control plane's."""

MAX_PAYLOAD: Final = 88 * 1024


class EnvelopeSignature(Struct, frozen=True):
    """One signature of an envelope: the name of the key, and the signature in base64."""

    keyid: Annotated[str, Meta(pattern=r"^ed25519:[A-Za-z0-9_-]{22}\Z")]
    sig: Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{86}==\Z")]


class Envelope(Struct, frozen=True):
    """A receipt: the statement in base64, and its signatures."""

    payload_type: Annotated[str, Meta(max_length=64)] = field(name="payloadType")
    payload: Annotated[str, Meta(max_length=MAX_PAYLOAD)]
    signatures: Annotated[tuple[EnvelopeSignature, ...], Meta(min_length=1, max_length=MAX_SIGNATURES)]

    @property
    def signed(self) -> bytes:
        """The bytes that each signature covers; `SchemaError` for a payload that is no base64."""
        return pae(self.content, self.payload_type)

    @property
    def content(self) -> bytes:
        """The bytes of the payload; `SchemaError` when it is no base64."""
        return _bytes_of(self.payload)

    @property
    def statement(self) -> "Statement":
        """The statement; `SchemaError` when the payload is none."""
        # Every message imports this module, and an agent that makes no receipts needs no statement in its memory.
        from schemas.receipts.statement import decode_statement  # noqa: PLC0415

        if self.payload_type != PAYLOAD_TYPE:
            message = "an envelope of another type"
            raise SchemaError(message)
        return decode_statement(self.content)

    def signature_of(self, kid: str) -> bytes | None:
        """The signature of the key with this name; None without exactly one."""
        found = [one.sig for one in self.signatures if one.keyid == kid]
        return _bytes_of(found[0]) if len(found) == 1 else None

    def with_signature(self, kid: str, signature: bytes) -> "Envelope":
        """The same payload with one more signature."""
        return Envelope(self.payload_type, self.payload, (*self.signatures, _signature(kid, signature)))


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Envelope)


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The pre-authentication encoding: type and payload, each with its length in bytes."""
    name = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def seal_payload(payload: bytes, kid: str, signature: bytes) -> Envelope:
    """The envelope of a payload with its first signature, which is one of `pae(payload)`."""
    return Envelope(PAYLOAD_TYPE, b64encode(payload).decode(), (_signature(kid, signature),))


def encode_envelope(envelope: Envelope) -> bytes:
    """The envelope as it is stored beside the object, and in the database."""
    return _encoder.encode(envelope)


def decode_envelope(data: bytes) -> Envelope:
    """An envelope that was stored; `SchemaError` for anything else."""
    try:
        return _decoder.decode(data)
    except (ValueError, RecursionError) as error:
        message = f"no envelope of a receipt: {error}"
        raise SchemaError(message) from error


def _signature(kid: str, signature: bytes) -> EnvelopeSignature:
    return EnvelopeSignature(kid, b64encode(signature).decode())


def _bytes_of(text: str) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except ValueError as error:
        message = "no base64"
        raise SchemaError(message) from error
    if b64encode(data).decode() != text:
        message = "base64 that is not in its one form"
        raise SchemaError(message)
    return data
