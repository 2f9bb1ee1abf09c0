r"""The statement of a receipt: which object is which file of which client, by which digests.

Rule: pure. Both sides build the statement from their own records, and equal records give equal bytes: the members in
the order of the classes here, no white space, text in UTF-8 that escapes `"`, `\` and control characters alone.

>>> subject_of("k", DigestName.SHA256, PartPlan(0, 5_242_880), ["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="])
Subject(name='k', digest={'sha256': 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'})
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct, field

from schemas.digests import raw_digest
from schemas.errors import SchemaError
from schemas.parts import PartPlan
from schemas.values import DigestName, Instant, Int64, Recipient, Size, UploadOptions

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://backhaul.example/receipt/v1"
"""A name, not a place: `.example` is no host (RFC 2606)."""

WHOLE_SHA256: Final = "sha256"
PARTS: Final = "backhaul_parts_v1"
"""The digest over the digests of all parts (`parts_digest`)."""

_LARGEST: Final = 64 * 1024

Digest = dict[str, str]
Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Subject(Struct, frozen=True, forbid_unknown_fields=True):
    """The object: its key, and its digest in hex under the name of the algorithm."""

    name: str
    digest: Digest


class PartsOfFile(Struct, frozen=True, forbid_unknown_fields=True):
    """How the object was cut: number of parts, bytes of every part but the last, and the algorithm of their digests."""

    count: int
    size: Size
    digest: DigestName


class Predicate(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the object is.

    `size` in bytes is that of the object. `mtime_ns` is the time of the last change of the file, `completed_at` when
    the control plane proved the object, by `proof`; `closed_at` by the device's clock, which may be wrong. `command` is
    the SHA-256 of the signed command that the device obeyed. The last two are the device's word alone.
    """

    client_id: str
    upload_id: str
    attempt: int
    path: str
    size: Size
    parts: PartsOfFile
    proof: str
    completed_at: Instant
    mtime_ns: Int64 | None = None
    job: str | None = None
    compression: str = "none"
    encrypt_to: tuple[Recipient, ...] = ()
    closed_at: Instant | None = None
    command: Hex | None = None


class Statement(Struct, frozen=True, forbid_unknown_fields=True):
    """An in-toto Statement, version 1, about one object."""

    type: str = field(name="_type")
    subject: tuple[Subject]
    predicate_type: str = field(name="predicateType")
    predicate: Predicate


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Statement)


def encode_statement(subject: Subject, predicate: Predicate) -> bytes:
    """The bytes that are signed."""
    return _encoder.encode(Statement(STATEMENT_TYPE, (subject,), PREDICATE_TYPE, predicate))


def decode_statement(payload: bytes) -> Statement:
    """The statement in these bytes; `SchemaError` for any other bytes than `encode_statement` makes of it."""
    if len(payload) > _LARGEST:
        message = f"a statement of {len(payload)} bytes is too large"
        raise SchemaError(message)
    try:
        statement = _decoder.decode(payload)
    except ValueError as error:
        message = f"no statement of a receipt: {error}"
        raise SchemaError(message) from error
    if (statement.type, statement.predicate_type) != (STATEMENT_TYPE, PREDICATE_TYPE):
        message = "a statement of another type"
        raise SchemaError(message)
    if _encoder.encode(statement) != payload:
        # Such as two members of one name: two readers could understand two things.
        message = "the statement is not written in the one form that a receipt has"
        raise SchemaError(message)
    return statement


def subject_of(name: str, digest: DigestName, plan: PartPlan, digests: Sequence[str | None]) -> Subject:
    """The object `name` by the digests (base64) of its parts, in their order; `SchemaError` for one that is none.

    A file of one part with SHA-256 has its own digest; any other one the digest over those of its parts.
    """
    if digest is DigestName.SHA256 and plan.total == 1 and len(digests) == 1:
        raw = raw_digest(digest, digests[0] or "")
        if raw is None:
            message = "a part without its digest"
            raise SchemaError(message)
        return Subject(name, {WHOLE_SHA256: raw.hex()})
    return Subject(name, {PARTS: parts_digest(digest, plan, digests)})


def parts_digest(digest: DigestName, plan: PartPlan, digests: Iterable[str | None]) -> str:
    r"""SHA-256, in hex, of the lines `backhaul_parts_v1 DIGEST FILE_SIZE PART_SIZE` and one digest (base64) a part.

    A part without a digest has the line `-`. It binds no better than `digest` does: MD5 and CRC-32 detect accidents.

    >>> parts_digest(DigestName.CRC32, PartPlan(0, 5_242_880), ["AAAAAA=="])[:16]
    'f6bf669f4b4ed8aa'
    """
    head = f"{PARTS} {digest} {plan.file_size} {plan.part_size}\n"
    lines = "".join(f"{one or '-'}\n" for one in digests)
    return hashlib.sha256((head + lines).encode()).hexdigest()


def predicate_of(
    options: UploadOptions,
    digest: DigestName,
    plan: PartPlan,
    **known: object,
) -> Predicate:
    """The predicate of an upload with these options and this plan; `known` are its other fields."""
    return msgspec.convert(
        {
            **known,
            "size": plan.file_size,
            "parts": {"count": plan.total, "size": plan.part_size, "digest": digest},
            "compression": options.compression,
            "encrypt_to": options.encrypt_to,
        },
        Predicate,
    )
