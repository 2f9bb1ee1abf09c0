"""What a receipt states of an upload, and whether an envelope states the same.

Rule: pure. The control plane signs what its own records give, byte by byte; of a device's statement it takes over the
two members that only the device knows, and nothing else.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from control_plane.domain.uploads.model import Upload
from schemas.errors import SchemaError
from schemas.receipts.envelope import Envelope, pae, seal_payload
from schemas.receipts.statement import Statement, decode_statement, encode_statement, predicate_of, subject_of

if TYPE_CHECKING:
    from schemas.signing.ed25519 import Signer, Verifier

_LONGEST: Final = 80
"""Characters of a value in the text of a contradiction."""


def statement_bytes(upload: Upload, of_device: Statement | None = None) -> bytes:
    """The statement about this completed upload, with the device's own members from `of_device`.

    `SchemaError` for an upload whose parts are not known.
    """
    plan, completed_at = upload.plan, upload.completed_at
    if plan is None or completed_at is None or upload.proof is None:
        message = "the upload is not proven"
        raise SchemaError(message)
    digests = [upload.parts[number].digest if number in upload.parts else None for number in plan.numbers]
    own = None if of_device is None else of_device.predicate
    predicate = predicate_of(
        upload.options,
        upload.digest,
        plan,
        client_id=upload.client_id,
        upload_id=upload.upload_id,
        attempt=upload.attempt,
        path=upload.file_path or "",
        proof=str(upload.proof),
        completed_at=datetime.fromtimestamp(completed_at, UTC),
        mtime_ns=_mtime(upload, of_device),
        job=upload.job_id,
        closed_at=None if own is None else own.closed_at,
        command=None if own is None else own.command,
    )
    return encode_statement(subject_of(upload.s3_key, upload.digest, plan, digests), predicate)


def _mtime(upload: Upload, of_device: Statement | None) -> int | None:
    """The time of the file as it was offered; of a file that may grow meanwhile, as the device has it at the end."""
    if of_device is not None and upload.options.on_change == "prefix":
        return of_device.predicate.mtime_ns
    return None if upload.fingerprint is None else upload.fingerprint.mtime_ns


def sign_alone(upload: Upload, signer: "Signer") -> Envelope:
    """The receipt with the control plane's signature alone; `SchemaError` as for `statement_bytes`."""
    payload = statement_bytes(upload)
    return seal_payload(payload, signer.kid, signer.sign_bytes(pae(payload)))


def witness(upload: Upload, envelope: Envelope, device: "Verifier", signer: "Signer") -> Envelope:
    """The device's receipt with the control plane's signature beside it.

    `SchemaError` says what does not agree: the signature, or the first member that the records contradict.
    """
    require_signature(envelope, device, "the device")
    statement = envelope.statement
    require_same(statement, statement_bytes(upload, statement))
    first = Envelope(envelope.payload_type, envelope.payload, envelope.signatures[:1])
    if len(envelope.signatures) > 1:
        message = "the device's receipt has more than one signature"
        raise SchemaError(message)
    return first.with_signature(signer.kid, signer.sign_bytes(first.signed))


def require_signature(envelope: Envelope, key: "Verifier", whose: str) -> None:
    """`SchemaError` unless this key has signed the envelope."""
    signature = envelope.signature_of(key.kid)
    if signature is None or not key.verifies_bytes(signature, envelope.signed):
        message = f"the receipt is not signed by the key of {whose}, {key.kid}"
        raise SchemaError(message)


def require_same(statement: Statement, expected: bytes) -> None:
    """`SchemaError` with the first member that differs from the `expected` statement."""
    if encode_statement(statement.subject[0], statement.predicate) == expected:
        return
    other = decode_statement(expected)
    pairs = [
        *_pairs(statement.subject[0], other.subject[0]),
        *_pairs(statement.predicate, other.predicate),
    ]
    name, said, known = next((one for one in pairs if one[1] != one[2]), ("statement", "", ""))
    message = f"{name} is {_shown(said)} in the receipt, and {_shown(known)} in the database"
    raise SchemaError(message)


def _pairs(one: msgspec.Struct, other: msgspec.Struct) -> list[tuple[str, Any, Any]]:
    return [(name, getattr(one, name), getattr(other, name)) for name in one.__struct_fields__]


def _shown(value: object) -> str:
    text = repr(msgspec.to_builtins(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
