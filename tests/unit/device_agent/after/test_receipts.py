"""Receipts on the device: asked for in a close, durable, signed, repeated until they are acknowledged."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from device_agent import uploads
from device_agent.after.receipts import MAX_OPEN, ReceiptDuties
from device_agent.state.journal import Journal
from device_agent.transfer.closing import receipt_due
from device_agent.transfer.events import CloseReceived
from device_agent.transfer.records import ReceiptDue, Tombstone
from schemas.messages import CloseUpload, ReceiptOrder, Response, UploadReport
from schemas.receipts.envelope import Envelope
from schemas.signing.ed25519 import Signer
from schemas.values import DigestName, UploadOptions
from tests.unit.device_agent.after.test_closing import sent

SIGNER: Final = Signer(bytes(range(32)))
ORDER: Final = ReceiptOrder("uploads/a.bin", datetime(2026, 1, 1, tzinfo=UTC), "nightly")


def due(number: int = 0) -> ReceiptDue:
    """A receipt that an owner asked for."""
    return ReceiptDue(
        f"m{number}",
        1,
        "control-plane",
        "uploads/a.bin",
        ORDER.completed_at,
        "checksum",
        "/data/a.bin",
        7,
        3,
        DigestName.SHA256,
        5 * 1024 * 1024,
        {"sha256": "ab" * 32},
        UploadOptions(),
        closed_at=5,
    )


class Device:
    """The duties over a journal, and what they published."""

    def __init__(self, folder: Path, signer: Signer | None = SIGNER) -> None:
        self.journal, _ = Journal.open(folder)
        self.published: list[tuple[str, Response]] = []
        self.duties = ReceiptDuties(self.journal, signer, client_id="restaurant-1", publish=self._publish)

    def _publish(self, response: Response, key: str) -> None:
        self.published.append((key.removeprefix("receipt "), response))

    def closed(self, *numbers: int) -> None:
        """Uploads were closed, durably."""
        for number in numbers:
            self.journal.append(Tombstone(f"u{number}", "completed", 1, receipt=due(number)))
        self.journal.commit()
        self.duties.begin(f"u{number}" for number in numbers)

    def envelope(self) -> Envelope:
        """The last receipt that was published."""
        payload = self.published[-1][1].payload
        assert isinstance(payload, UploadReport)
        assert payload.receipt is not None
        return payload.receipt


def close(receipt: ReceiptOrder | None = None, attempt: int = 1) -> CloseUpload:
    """The owner's close; without an order it acknowledges."""
    return CloseUpload(upload_id="u0", outcome="completed", attempt=attempt, receipt=receipt)


def test_a_receipt_is_signed_and_repeated_until_a_close_asks_for_none(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.closed(0)
    device.duties.work(1.0, connected=False)
    assert device.published == []
    device.duties.work(1.0, connected=True)
    envelope = device.envelope()
    signature = envelope.signature_of(SIGNER.kid)
    assert signature is not None
    assert SIGNER.verifier.verifies_bytes(signature, envelope.signed)
    assert envelope.statement.predicate.path == "/data/a.bin"
    again = device.duties.next_at
    assert again is not None
    device.duties.acknowledged("u0", close(ORDER))
    device.duties.work(again, connected=True)
    assert [key for key, _ in device.published] == ["u0", "u0"]
    assert device.published[0] == device.published[1]
    device.duties.acknowledged("u0", close())
    assert device.journal.memory.tombstones["u0"].receipt is None
    device.duties.connected()
    device.duties.work(again + 10_000, connected=True)
    assert len(device.published) == 2
    assert device.duties.next_at is None
    device.journal.commit()
    device.journal.close()


def test_nothing_is_published_before_its_tombstone_is_durable(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.journal.append(Tombstone("u0", "completed", 1, receipt=due()))
    device.duties.begin(["u0"])
    device.duties.work(1.0, connected=True)
    assert device.published == []
    device.journal.commit()
    device.duties.work(1.0, connected=True)
    assert len(device.published) == 1
    device.journal.close()


def test_an_agent_that_was_restarted_before_its_receipt_was_taken_publishes_the_same_one(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.closed(0)
    device.duties.work(1.0, connected=True)
    first = device.published
    device.journal.close()
    device = Device(tmp_path)
    device.duties.work(1.0, connected=True)
    assert device.published == first
    device.duties.acknowledged("u0", close())
    device.journal.commit()
    device.journal.close()
    device = Device(tmp_path)
    assert device.journal.memory.receipts == set()
    device.duties.work(1.0, connected=True)
    assert device.published == []
    device.journal.close()


def test_an_older_close_acknowledges_nothing_and_a_newer_attempt_ends_it(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.journal.append(Tombstone("u0", "completed", 1, receipt=replace(due(), attempt=2)))
    device.journal.commit()
    device.duties.begin(["u0"])
    device.duties.acknowledged("u0", close(attempt=1))
    assert device.journal.memory.receipts == {"u0"}
    device.duties.acknowledged("u0", close(ORDER, attempt=3))
    assert device.journal.memory.receipts == set()
    device.journal.close()


def test_receipts_that_are_never_acknowledged_do_not_hold_up_the_others_for_ever(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.closed(*range(MAX_OPEN + 3))
    device.duties.work(1.0, connected=True)
    assert len(device.published) == MAX_OPEN
    later = device.duties.next_at
    assert later is not None
    device.duties.work(later, connected=True)
    assert {key for key, _ in device.published} == {f"u{number}" for number in range(MAX_OPEN + 3)}
    device.journal.close()


def test_an_agent_without_a_key_signs_nothing(tmp_path: Path) -> None:
    device = Device(tmp_path, None)
    device.closed(0)
    device.duties.work(1.0, connected=True)
    assert device.published == []
    device.journal.close()


def test_as_many_receipts_wait_as_the_journal_may_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_RECEIPTS", 2)
    journal, _ = Journal.open(tmp_path)
    table = uploads.Uploads(journal, [], workers=1, now=0.0, wall=lambda: 9.0)
    for number in range(3):
        table.write_tombstone(f"u{number}", "completed", receipt=due(number))
    assert journal.memory.receipts == {"u0", "u1"}
    kept = journal.memory.tombstones["u0"].receipt
    assert kept is not None
    assert kept.closed_at == 9
    journal.close()


def test_only_what_was_sent_part_by_part_in_this_attempt_is_vouched_for() -> None:
    transfer = sent().transfer
    attempt = transfer.order.attempt
    asked = CloseReceived(now=1.0, outcome="completed", attempt=attempt, proof="etag", receipt=ORDER)
    made = receipt_due(transfer, asked)
    assert made is not None
    assert (made.key, made.job, made.file_path) == (ORDER.key, "nightly", transfer.order.file_path)
    refused = [
        receipt_due(transfer, replace(asked, receipt=None)),
        receipt_due(transfer, replace(asked, proof=None)),
        receipt_due(transfer, replace(asked, attempt=attempt + 1)),
        receipt_due(replace(transfer, digests={}), asked),
        receipt_due(replace(transfer, ending=None), asked),
    ]
    assert refused == [None] * 5
