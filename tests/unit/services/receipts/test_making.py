"""The device's receipt and the control plane's records: equal, or refused with the member that differs."""

import base64
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.domain.uploads.model import PartRecord, Proof, State, Upload
from control_plane.services.receipts.making import sign_alone, witness
from device_agent.after.receipts import signed_receipt
from device_agent.transfer.records import ReceiptDue
from schemas.errors import SchemaError
from schemas.parts import MIB
from schemas.receipts.envelope import Envelope
from schemas.receipts.statement import subject_of
from schemas.signing.ed25519 import Signer
from schemas.values import DigestName, UploadOptions
from tests.support.uploads import CHUNK, FINGERPRINT, an_upload, wanted

DEVICE, PLANE, THIEF = (Signer(bytes([number]) * 32) for number in (1, 2, 3))
SIZE: Final = 12 * MIB
UPLOAD: Final = an_upload(
    state=State.COMPLETED,
    proof=Proof.ETAG,
    completed_at=1_767_225_600.25,
    file_size=SIZE,
    part_size=CHUNK,
    fingerprint=FINGERPRINT,
    parts={part.part_number: PartRecord(part.digest, "e") for part in wanted(SIZE)},
    job_id="nightly",
)


def due_of(upload: Upload = UPLOAD) -> ReceiptDue:
    """What the device has in its journal about the same upload."""
    plan, completed_at = upload.plan, upload.completed_at
    assert plan is not None
    assert completed_at is not None
    digests = [upload.parts[number].digest for number in plan.numbers]
    return ReceiptDue(
        upload.message_id,
        upload.attempt,
        upload.owner,
        upload.s3_key,
        datetime.fromtimestamp(completed_at, UTC),
        str(upload.proof),
        upload.file_path or "",
        plan.file_size,
        FINGERPRINT.mtime_ns,
        upload.digest,
        plan.part_size,
        subject_of(upload.s3_key, upload.digest, plan, digests).digest,
        upload.options,
        job=upload.job_id,
        closed_at=1_767_225_601,
        command_sha256="ab" * 32,
    )


def receipt(due: ReceiptDue, signer: Signer = DEVICE) -> Envelope:
    """The receipt as the device publishes it."""
    return signed_receipt(signer, UPLOAD.client_id, UPLOAD.upload_id, due)


def test_equal_records_give_a_receipt_with_two_signatures_over_one_payload() -> None:
    """The control plane adds its own beside the device's."""
    signed = witness(UPLOAD, receipt(due_of()), DEVICE.verifier, PLANE)
    assert [one.keyid for one in signed.signatures] == [DEVICE.kid, PLANE.kid]
    for signer in (DEVICE, PLANE):
        signature = signed.signature_of(signer.kid)
        assert signature is not None
        assert signer.verifier.verifies_bytes(signature, signed.signed)
    predicate = signed.statement.predicate
    assert (predicate.command, predicate.job, predicate.parts.count) == ("ab" * 32, "nightly", 3)


def test_alone_the_control_plane_signs_the_same_statement_without_the_devices_members() -> None:
    """Nothing is said in the device's name."""
    alone = sign_alone(UPLOAD, PLANE)
    ours = alone.statement.predicate
    assert (ours.closed_at, ours.command) == (None, None)
    theirs = receipt(due_of()).statement.predicate
    assert replace(theirs, closed_at=None, command=None) == ours


CHANGES: Final[dict[str, Any]] = {
    "key": "uploads/restaurant-1/other.bin",
    "completed_at": datetime(2026, 1, 2, tzinfo=UTC),
    "proof": "size",
    "file_path": "/data/b.bin",
    "file_size": SIZE + 1,
    "mtime_ns": 4,
    "algorithm": DigestName.SHA256,
    "part_size": CHUNK + 1,
    "digest": {"sha256": "00" * 32},
    "options": UploadOptions(compression="gzip"),
    "job": "hourly",
    "attempt": 2,
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_member_that_the_records_contradict_is_refused(name: str) -> None:
    """A device may sign what it likes; the control plane witnesses what it knows."""
    with pytest.raises(SchemaError, match="in the receipt, and"):
        witness(UPLOAD, receipt(replace(due_of(), **{name: CHANGES[name]})), DEVICE.verifier, PLANE)


def test_every_member_of_the_journal_that_is_signed_is_compared() -> None:
    """A member that is added later is added here."""
    not_signed = {"message_id", "owner", "principal"}
    of_device = {"closed_at", "command_sha256"}
    assert set(ReceiptDue.__struct_fields__) == {*CHANGES, *not_signed, *of_device}


def test_another_key_and_a_second_signature_are_refused() -> None:
    """Also beside the right one."""
    with pytest.raises(SchemaError, match="not signed by the key"):
        witness(UPLOAD, receipt(due_of(), THIEF), DEVICE.verifier, PLANE)
    good = receipt(due_of())
    with pytest.raises(SchemaError, match="more than one"):
        witness(UPLOAD, good.with_signature(THIEF.kid, THIEF.sign_bytes(good.signed)), DEVICE.verifier, PLANE)
    with pytest.raises(SchemaError, match="more than one"):
        witness(UPLOAD, good.with_signature(PLANE.kid, PLANE.sign_bytes(good.signed)), DEVICE.verifier, PLANE)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_altered_byte_of_payload_or_signature_is_refused(data: st.DataObject) -> None:
    """The envelope holds as it was signed, or not at all."""
    good = receipt(due_of())
    payload, signature = bytearray(good.content), bytearray(good.signature_of(DEVICE.kid) or b"")
    altered = data.draw(st.sampled_from([payload, signature]))
    place = data.draw(st.integers(0, len(altered) - 1))
    altered[place] ^= data.draw(st.integers(1, 255))
    bad = Envelope(good.payload_type, base64.b64encode(payload).decode(), ()).with_signature(
        DEVICE.kid, bytes(signature)
    )
    with pytest.raises(SchemaError):
        witness(UPLOAD, bad, DEVICE.verifier, PLANE)


@settings(max_examples=100, deadline=None)
@given(
    path=st.text(min_size=1, max_size=200).filter(lambda text: text.isprintable()),
    size=st.integers(0, 40 * MIB),
    digest=st.sampled_from([DigestName.MD5, DigestName.CRC32, DigestName.SHA256]),
)
def test_both_sides_build_the_same_bytes_for_any_file(path: str, size: int, digest: DigestName) -> None:
    """Whatever the name, the size and the digest."""
    raw = {DigestName.MD5: 16, DigestName.CRC32: 4, DigestName.SHA256: 32}[digest]
    text = base64.b64encode(bytes(raw)).decode()
    total = max(1, -(-size // CHUNK))
    parts = {number: PartRecord(text, "e") for number in range(1, total + 1)}
    upload = replace(UPLOAD, file_path=path, file_size=size, digest=digest, parts=parts)
    assert witness(upload, receipt(due_of(upload)), DEVICE.verifier, PLANE).statement.predicate.path == path


def test_of_a_file_that_may_grow_the_time_at_the_end_is_the_devices() -> None:
    """`on_change` `prefix`: it was appended to while it was sent."""
    upload = replace(UPLOAD, options=UploadOptions(on_change="prefix"))
    signed = witness(upload, receipt(replace(due_of(upload), mtime_ns=99)), DEVICE.verifier, PLANE)
    assert msgspec.json.decode(signed.content)["predicate"]["mtime_ns"] == 99
