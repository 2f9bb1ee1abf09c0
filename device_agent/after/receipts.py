"""Receipts of closed uploads: signed on this device, and published until the owner has them.

Rule: used by the agent's loop only. A receipt is signed for what this agent has sent itself, after its tombstone is
durable; the same tombstone gives the same receipt. The upload is over without it.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from device_agent.backoff import exponential
from device_agent.state.journal import Journal
from device_agent.transfer.records import ReceiptDue, Tombstone
from schemas.messages import CloseUpload, Response, UploadReport
from schemas.parts import PartPlan
from schemas.values import Action, ResponseStatus

if TYPE_CHECKING:
    from schemas.receipts.envelope import Envelope

MAX_OPEN: Final = 64
"""Receipts that were published and are not acknowledged; further ones wait for these, or for their repetition."""

_AGAIN: Final = (10.0, 3600.0)
"""Seconds before a receipt is published again: the first time, and at most."""


class ReceiptSigner(Protocol):
    """The key of this device, as `schemas.signing.ed25519.Signer` holds it."""

    @property
    def kid(self) -> str:
        """The name of the key."""

    def sign_bytes(self, data: bytes) -> bytes:
        """The signature of these bytes."""


class _Duty(Struct):
    wake_at: float = 0.0
    repeats: int = 0


class ReceiptDuties:
    """The receipts that the owners of closed uploads wait for; none without a `signer`."""

    def __init__(
        self,
        journal: Journal,
        signer: ReceiptSigner | None,
        *,
        client_id: str,
        publish: Callable[[Response, str], None],
    ) -> None:
        self._journal = journal
        self._signer = signer
        self._client_id = client_id
        self._publish = publish
        self._duties: dict[str, _Duty] = {}
        self.begin(tuple(journal.memory.receipts))

    def begin(self, upload_ids: Iterable[str]) -> None:
        """Uploads were closed: of some the owner wants a receipt."""
        if self._signer is not None:
            self._duties |= {one: _Duty() for one in upload_ids if self._due(one) is not None}

    def acknowledged(self, upload_id: str, close: CloseUpload) -> None:
        """A close of an upload that is closed: without `receipt` the owner wants none, or has it."""
        due = self._due(upload_id)
        if due is None or close.about_attempt < due.attempt:
            return
        if close.receipt is None or close.about_attempt > due.attempt:
            tombstone = self._journal.memory.tombstones[upload_id]
            self._journal.append(replace(tombstone, receipt=None))
            self._duties.pop(upload_id, None)

    def connected(self) -> None:
        """Receipts that were not acknowledged are published again at once."""
        for duty in self._duties.values():
            duty.wake_at, duty.repeats = 0.0, 0

    def work(self, now: float, *, connected: bool) -> None:
        """After a commit: publish the receipts that are due and durable."""
        if not self._duties or not connected:
            return
        pending = self._journal.pending_uploads(Tombstone)
        room = MAX_OPEN - sum(duty.repeats == 1 and now < duty.wake_at for duty in self._duties.values())
        for upload_id, duty in tuple(self._duties.items()):
            due = self._due(upload_id)
            if due is None or self._signer is None:
                del self._duties[upload_id]  # Its tombstone gave way to later ones.
            elif upload_id not in pending and now >= duty.wake_at and (duty.repeats or room > 0):
                room -= not duty.repeats
                self._publish(receipt(self._signer, self._client_id, upload_id, due), f"receipt {upload_id}")
                duty.wake_at = now + exponential(duty.repeats, *_AGAIN)
                duty.repeats += 1

    @property
    def next_at(self) -> float | None:
        """When `work` has an effect, as far as time decides it: nothing, or a repetition."""
        return min((duty.wake_at for duty in self._duties.values() if duty.wake_at), default=None)

    def _due(self, upload_id: str) -> ReceiptDue | None:
        tombstone = self._journal.memory.tombstones.get(upload_id)
        return None if tombstone is None else tombstone.receipt


def receipt(signer: ReceiptSigner, client_id: str, upload_id: str, due: ReceiptDue) -> Response:
    """The response with the signed receipt: outside of the count of sequences."""
    return Response(
        message_id=due.message_id,
        action=Action.DOWNLOAD_FILE,
        status=ResponseStatus.SUCCESS,
        payload=UploadReport(
            upload_id=upload_id,
            attempt=due.attempt,
            owner=due.owner,
            receipt=signed_receipt(signer, client_id, upload_id, due),
        ),
    )


def signed_receipt(signer: ReceiptSigner, client_id: str, upload_id: str, due: ReceiptDue) -> "Envelope":
    """The envelope with this device's signature."""
    # An agent that makes no receipts needs none of this in its memory.
    from schemas.receipts.envelope import pae, seal_payload  # noqa: PLC0415
    from schemas.receipts.statement import Subject, encode_statement, predicate_of  # noqa: PLC0415

    predicate = predicate_of(
        due.options,
        due.algorithm,
        PartPlan(due.file_size, due.part_size),
        client_id=client_id,
        upload_id=upload_id,
        attempt=due.attempt,
        path=due.file_path,
        proof=due.proof,
        completed_at=due.completed_at,
        mtime_ns=due.mtime_ns,
        job=due.job,
        closed_at=datetime.fromtimestamp(due.closed_at, UTC) if due.closed_at else None,
        command=due.command_sha256,
    )
    payload = encode_statement(Subject(due.key, due.digest), predicate)
    return seal_payload(payload, signer.kid, signer.sign_bytes(pae(payload)))
