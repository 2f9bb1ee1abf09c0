"""Receipts through the running engine: asked for, waited for, witnessed, refused, stored, verified."""

import asyncio
import dataclasses
from typing import IO, Any

import msgspec
import pytest

from control_plane.domain.access import Principal, Scope
from control_plane.domain.devices import Device, DeviceState
from control_plane.domain.uploads.model import State, Upload, UploadKey, UploadReceipt
from control_plane.services.errors import ObjectStoreDown, ObjectStoreRefused
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Records, Subject
from control_plane.services.ports.messenger import Delivered
from control_plane.services.receipts.maker import DEVICE_WAIT, MAX_OF_ONE, MAX_WAITING, envelope_of, receipt_key
from control_plane.services.receipts.making import sign_alone
from control_plane.services.receipts.service import Content, Measured, ReceiptService, ReceiptVerdict, Verified
from control_plane.services.trust.keyring import ControlPlaneKey
from device_agent.after.receipts import signed_receipt
from schemas.codec import encode
from schemas.messages import CloseUpload, Response, UploadReport
from schemas.receipts.envelope import Envelope, encode_envelope
from schemas.signing.canonical import SignedKind
from schemas.signing.ed25519 import Signer, Verifier
from schemas.topics import Channel
from tests.support.fakes import CLIENT, OPERATOR, FakeObjects, Rig
from tests.unit.services.receipts.test_making import due_of

DEVICE, PLANE, THIEF = (Signer(bytes([number]) * 32) for number in (1, 2, 3))


def a_rig(*, beside: bool = True) -> Rig:
    """An engine with a key."""
    return Rig(Policy(receipts=beside), key=ControlPlaneKey(PLANE))


async def deliver(rig: Rig, upload: Upload, envelope: Envelope) -> None:
    """The client publishes its receipt."""
    report = UploadReport(upload_id=upload.upload_id, attempt=upload.attempt, owner=upload.owner, receipt=envelope)
    message = encode(Response(message_id="m", action="download_file", status="success", payload=report))
    rig.engine.inbox.receive(signed_by_device(rig, message))
    await rig.settle()


def signed_by_device(rig: Rig, message: bytes) -> Delivered:
    """A response as its device publishes it."""
    topic = rig.topics.of(CLIENT, Channel.RESPONSE)
    properties = tuple(DEVICE.sign(SignedKind.RESPONSE, topic, message).properties())
    return Delivered(topic, message, properties=properties)


async def finished(rig: Rig, *, pinned: bool) -> Upload:
    """A completed upload; the key of its client is pinned before its completion, if it is."""
    upload = await rig.granted()
    report = rig.offer(upload.upload_id, wanted_parts=(), etags={1: '"e1"', 2: '"e2"', 3: '"e3"'})
    if pinned:
        device = Device(CLIENT, DeviceState.ACTIVE, 0.0, "ann", public_key=DEVICE.verifier.public_key)
        await rig.database.write(lambda records: records.devices.save(device))
        await rig.engine.pins.load()
        message = encode(Response(message_id="m", action="download_file", status="success", payload=report, sequence=2))
        rig.engine.inbox.receive(signed_by_device(rig, message))
        await rig.settle()
    else:
        await rig.respond(report, "success", sequence=2)
    done = await rig.upload(upload.upload_id)
    assert done.state is State.COMPLETED
    return done


def envelope(upload: Upload, signer: Signer = DEVICE, **changes: Any) -> Envelope:  # noqa: ANN401
    """The device's receipt."""
    due = msgspec.structs.replace(due_of(upload), **changes)
    return signed_receipt(signer, upload.client_id, upload.upload_id, due)


def receipt_of(upload: Upload) -> UploadReceipt:
    """The receipt as far as it is made."""
    assert upload.receipt is not None
    return upload.receipt


def last_close(rig: Rig) -> CloseUpload:
    """The last close that was published."""
    return next(one.payload for _, one in reversed(rig.messenger.sent) if isinstance(one.payload, CloseUpload))


async def left_duties(rig: Rig, upload: Upload) -> list[str]:
    """What the outbox still has to do."""
    entries = await rig.database.read(lambda records: records.outbox.of(Subject.of_upload(upload.key)))
    return [str(entry.duty.kind) for entry in entries]


async def test_without_a_pinned_key_the_control_plane_signs_alone_at_once() -> None:
    """The close asks for nothing; the receipt is stored beside the object."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=False)
        assert last_close(rig).receipt is None
        signed = envelope_of(receipt_of(upload))
        assert signed is not None
        assert [one.keyid for one in signed.signatures] == [PLANE.kid]
        assert rig.objects.own[receipt_key(upload.s3_key)].decode() == receipt_of(upload).envelope
        assert await left_duties(rig, upload) == []


async def test_a_device_that_sends_receipts_without_end_delays_no_other() -> None:
    """Its own are dropped beyond a bound; the other's is the next but one."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=True)
        assert rig.engine.receipts is not None
        for _ in range(2 * MAX_WAITING):
            rig.engine.receipts.receive(UploadKey("flooding", "u"), 1, envelope(upload))
        await deliver(rig, upload, envelope(upload))
        assert receipt_of(await rig.upload(upload.upload_id)).device_key == DEVICE.verifier.text
        shed = [facts["client_id"] for event, facts in rig.events if event == "receipt.shed"]
        assert shed == ["flooding"] * (2 * MAX_WAITING - MAX_OF_ONE)


async def test_a_device_with_a_key_is_asked_and_its_receipt_is_witnessed_and_acknowledged() -> None:
    """The close that follows asks no more."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=True)
        order = last_close(rig).receipt
        assert order is not None
        assert order.key == upload.s3_key
        assert receipt_of(upload).envelope is None
        assert await left_duties(rig, upload) == ["receipt"]
        await deliver(rig, upload, envelope(upload))
        upload = await rig.upload(upload.upload_id)
        signed = envelope_of(receipt_of(upload))
        assert signed is not None
        assert [one.keyid for one in signed.signatures] == [DEVICE.kid, PLANE.kid]
        assert receipt_of(upload).device_key == DEVICE.verifier.text
        assert last_close(rig).receipt is None
        assert rig.objects.own[receipt_key(upload.s3_key)].decode() == receipt_of(upload).envelope
        assert await left_duties(rig, upload) == []


async def test_a_device_that_stays_away_is_waited_for_and_its_late_receipt_replaces_the_one_signed_alone() -> None:
    """Not before the wait is over, and nothing is lost after it."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=True)
        await rig.settle(DEVICE_WAIT - 1)
        assert receipt_of(await rig.upload(upload.upload_id)).envelope is None
        await rig.settle(2)
        alone = receipt_of(await rig.upload(upload.upload_id))
        assert (alone.device_key, alone.wanted) == (None, True)
        assert alone.done_at is not None
        await deliver(rig, upload, envelope(upload))
        both = receipt_of(await rig.upload(upload.upload_id))
        assert both.device_key == DEVICE.verifier.text
        assert rig.objects.own[receipt_key(upload.s3_key)].decode() == both.envelope


async def test_a_receipt_that_contradicts_the_database_is_refused_once_and_the_control_plane_signs_alone() -> None:
    """The device is released, and asked no more; the reason is kept."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=True)
        await deliver(rig, upload, envelope(upload, file_path="/data/other.bin"))
        upload = await rig.upload(upload.upload_id)
        receipt = receipt_of(upload)
        assert receipt.refused is not None
        assert "path is" in receipt.refused
        assert last_close(rig).receipt is None
        signed = envelope_of(receipt)
        assert signed is not None
        assert [one.keyid for one in signed.signatures] == [PLANE.kid]
        await deliver(rig, upload, envelope(upload))
        assert receipt_of(await rig.upload(upload.upload_id)).device_key is None
        assert rig.counted("receipt.refused") == 1


async def test_a_receipt_of_another_key_is_refused() -> None:
    """Whoever published it."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=True)
        await deliver(rig, upload, envelope(upload, THIEF))
        receipt = receipt_of(await rig.upload(upload.upload_id))
        assert receipt.device_key is None
        assert receipt.refused is not None


async def test_while_the_object_store_is_away_the_receipt_is_a_duty_and_the_upload_is_completed() -> None:
    """It is stored as soon as that is possible."""
    async with a_rig() as rig:
        rig.objects.fails["put"] = [ObjectStoreDown("away")] * 2
        upload = await finished(rig, pinned=False)
        assert await left_duties(rig, upload) == ["receipt"]
        assert receipt_key(upload.s3_key) not in rig.objects.own
        for _ in range(3):
            await rig.settle(600)
        assert receipt_key(upload.s3_key) in rig.objects.own
        assert await left_duties(rig, upload) == []


async def test_receipts_may_stay_in_the_database_or_not_be_made_at_all() -> None:
    """`RECEIPTS` is `database`, or `off`."""
    async with a_rig(beside=False) as rig:
        upload = await finished(rig, pinned=False)
        assert receipt_of(upload).envelope is not None
        assert rig.objects.own == {}
    async with Rig(key=ControlPlaneKey(PLANE)) as rig:
        upload = await finished(rig, pinned=True)
        assert upload.receipt is None
        assert last_close(rig).receipt is None
        await deliver(rig, upload, envelope(upload))
        assert (await rig.upload(upload.upload_id)).receipt is None


async def test_a_receipt_for_another_owner_is_answered_by_that_owner_alone() -> None:
    """A close from here would release the device from an upload that this control plane does not know."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=True)
        rig.messenger.sent.clear()
        about = UploadReport("another", 1, owner="cli-ann", receipt=envelope(upload))
        message = encode(Response(message_id="m", action="download_file", status="success", payload=about))
        rig.engine.inbox.receive(signed_by_device(rig, message))
        await rig.settle()
        assert rig.messenger.sent == []


async def test_what_was_begun_before_receipts_were_turned_off_is_ended() -> None:
    """Else its duty, and its device, would come again for ever."""
    async with a_rig() as before:
        upload = await finished(before, pinned=True)
        assert await left_duties(before, upload) == ["receipt"]
    async with Rig(key=ControlPlaneKey(PLANE), database=before.database, clock=before.clock) as rig:
        await rig.engine.pins.load()
        await deliver(rig, upload, envelope(upload))
        assert await left_duties(rig, upload) == []
        assert last_close(rig).receipt is None
        assert rig.objects.own == {}


def service(rig: Rig) -> ReceiptService:
    """The use cases over the rig."""
    return ReceiptService(
        uploads=rig.engine.upload_service,
        database=rig.database,
        object_store=rig.objects,
        probe=rig.engine.probe,
        clock=rig.clock,
        log=lambda event, facts: rig.events.append((event, facts)),
        policy=rig.policy,
        is_witness=lambda key: key == PLANE.verifier.text,
    )


async def verified(rig: Rig, upload: Upload, measured: Measured | None = None) -> Verified:
    """The verification of an upload."""
    return await service(rig).verify(OPERATOR, upload.upload_id, measured=measured)


async def test_an_untouched_object_is_verified_and_what_is_not_shown_is_said() -> None:
    """By size and token here: this object store shows no digest."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=True)
        await deliver(rig, upload, envelope(upload))
        found = await verified(rig, await rig.upload(upload.upload_id))
        assert (found.verdict, found.content, found.signed_by_device) == (ReceiptVerdict.VERIFIED, Content.SIZE, True)
        assert any("--bytes" in note for note in found.notes)
        assert rig.counted("upload.mismatched") == 0


async def test_the_word_of_a_caller_who_may_only_read_is_no_event() -> None:
    """It may read any object, and so claim of any that its bytes differ. What the control plane sees counts."""
    reader = Principal("reader", frozenset({Scope.UPLOADS_READ, Scope.OBJECTS_READ}))
    async with a_rig() as rig:
        upload = await finished(rig, pinned=False)
        await verified(rig, upload)
        claimed = Measured(upload.file_size or 0, {next(iter(due_of(upload).digest)): "00" * 32})
        told = await service(rig).verify(reader, upload.upload_id, measured=claimed)
        assert told.verdict is ReceiptVerdict.MISMATCH
        assert any("uploads:write" in note for note in told.notes)
        assert rig.counted("upload.mismatched") == 0
        del rig.objects.objects[upload.s3_key]
        seen = await service(rig).verify(reader, upload.upload_id, measured=claimed)
        assert "there is no object" in seen.differs[0]
        assert rig.counted("upload.mismatched") == 1


async def test_a_receipt_of_a_key_that_was_revoked_since_is_verified_and_the_key_is_named() -> None:
    async with a_rig() as rig:
        upload = await finished(rig, pinned=True)
        await deliver(rig, upload, envelope(upload))

        def revoke(records: Records) -> None:
            records.devices.revoke_key(DEVICE.verifier.public_key, CLIENT, 1.0)
            records.devices.delete(CLIENT)

        await rig.database.write(revoke)
        found = await verified(rig, await rig.upload(upload.upload_id))
        assert (found.verdict, found.signed_by_device) == (ReceiptVerdict.VERIFIED, True)
        assert any(DEVICE.kid in note for note in found.notes)


async def test_a_key_that_the_registry_never_had_proves_nothing() -> None:
    async with a_rig() as rig:
        upload = await finished(rig, pinned=True)
        await deliver(rig, upload, envelope(upload))
        await rig.database.write(lambda records: records.devices.delete(CLIENT))
        found = await verified(rig, await rig.upload(upload.upload_id))
        assert (found.verdict, found.signed_by_device) == (ReceiptVerdict.MISMATCH, False)
        assert "registry" in found.differs[0]


async def test_what_differs_is_named_and_is_an_event() -> None:
    """Size, token, a missing object, a missing copy, other bytes."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=False)
        good = rig.objects.objects[upload.s3_key]
        digest = due_of(upload).digest
        size = upload.file_size or 0
        assert (await verified(rig, upload, Measured(size, digest))).content is Content.BYTES
        other = await verified(rig, upload, Measured(size, {next(iter(digest)): "00" * 32}))
        assert "bytes that were read" in other.differs[0]
        rig.objects.objects[upload.s3_key] = dataclasses.replace(good, size=good.size + 1)
        assert "bytes" in (await verified(rig, upload)).differs[0]
        rig.objects.objects[upload.s3_key] = dataclasses.replace(good, metadata={})
        assert "token" in (await verified(rig, upload)).differs[0]
        del rig.objects.objects[upload.s3_key]
        assert "there is no object" in (await verified(rig, upload)).differs[0]
        rig.objects.objects[upload.s3_key] = good
        rig.objects.own.clear()
        missing = await verified(rig, upload)
        assert missing.verdict is ReceiptVerdict.MISMATCH
        assert "receipt beside" in missing.differs[0]
        assert rig.counted("upload.mismatched") == 5


async def test_a_copy_of_the_same_size_with_other_bytes_is_found() -> None:
    """Whoever writes to the bucket can keep the size; the receipt of another upload often has the same one."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=False)
        key = receipt_key(upload.s3_key)
        rig.objects.own[key] = rig.objects.own[key].swapcase()
        found = await verified(rig, upload)
        assert found.verdict is ReceiptVerdict.MISMATCH
        assert found.differs == (f"the receipt beside the object, {key!r}, is another one",)
        assert rig.counted("upload.mismatched") == 1


async def test_a_copy_that_is_archived_is_a_note_and_a_refusal_is_none() -> None:
    """Reading it would need a restore; without the permission nothing can be said."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=False)
        rig.objects.fails["read"] = [ObjectStoreRefused("archived", "InvalidObjectState")]
        found = await verified(rig, upload)
        assert found.verdict is ReceiptVerdict.VERIFIED
        assert "archived" in found.notes[0]
        rig.objects.fails["read"] = [ObjectStoreRefused("no", "AccessDenied")]
        with pytest.raises(ObjectStoreRefused, match="no"):
            await verified(rig, upload)


async def test_a_receipt_that_was_made_by_who_writes_to_the_database_does_not_verify() -> None:
    """Row, object and copy agree with it, and its signature is good: only the key is not the control plane's."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=False)
        forged = msgspec.structs.replace(upload, file_path="/data/another.bin")
        text = encode_envelope(sign_alone(forged, THIEF)).decode()
        own = msgspec.structs.replace(receipt_of(upload), envelope=text, witness_key=THIEF.verifier.text)
        forged = msgspec.structs.replace(forged, receipt=own)
        await rig.database.write(lambda records: records.uploads.save(upload, forged))
        rig.objects.own[receipt_key(upload.s3_key)] = text.encode()
        found = await verified(rig, forged)
        assert found.verdict is ReceiptVerdict.MISMATCH
        (differs,) = found.differs
        assert differs.startswith(f"the receipt is signed with {THIEF.kid}, which is no key of the control plane")
        assert differs.endswith(f"add {THIEF.verifier.text} to RECEIPT_KEYS")


async def test_a_slow_copy_of_the_older_receipt_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its PUT began before the device had signed, and lands after the copy of the better receipt is there."""
    async with a_rig() as rig:
        upload = await finished(rig, pinned=True)
        put, slow, stuck = FakeObjects.put, asyncio.Event(), asyncio.Event()

        async def first_is_slow(objects: FakeObjects, s3_key: str, content: IO[bytes]) -> None:
            if not stuck.is_set():
                stuck.set()
                await slow.wait()
            await put(objects, s3_key, content)

        monkeypatch.setattr(FakeObjects, "put", first_is_slow)
        await rig.settle(DEVICE_WAIT + 1)
        assert stuck.is_set()
        await deliver(rig, upload, envelope(upload))
        maker = rig.engine.receipts
        assert maker is not None
        await maker.perform(await rig.upload(upload.upload_id))
        both = receipt_of(await rig.upload(upload.upload_id))
        assert (both.device_key, both.done_at is None) == (DEVICE.verifier.text, False)
        slow.set()
        await rig.settle()
        assert rig.objects.own[receipt_key(upload.s3_key)].decode() == both.envelope


async def test_a_fault_in_one_receipt_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_rig() as rig:
        upload = await finished(rig, pinned=True)
        maker = rig.engine.receipts
        assert maker is not None
        key_of, faults = maker._key_of, [RuntimeError("a fault")]

        def once_broken(client_id: str) -> Verifier:
            if faults:
                raise faults.pop()
            return key_of(client_id)

        monkeypatch.setattr(maker, "_key_of", once_broken)
        await deliver(rig, upload, envelope(upload))
        assert receipt_of(await rig.upload(upload.upload_id)).device_key is None
        assert rig.counted("receipt.failed") == 1
        await deliver(rig, upload, envelope(upload))
        assert receipt_of(await rig.upload(upload.upload_id)).device_key == DEVICE.verifier.text
