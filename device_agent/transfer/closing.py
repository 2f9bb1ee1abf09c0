"""What a close leaves to be done: delete the file of the upload, or move it; sign the receipt of its object.

Rule: pure. Only what is proven is given up: the owner has proven the object by its content, this attempt has sent every
part, and the agent has the digest of each, to compare the file with.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from device_agent.transfer.events import CloseReceived, WriteTombstone
from device_agent.transfer.model import Transfer
from device_agent.transfer.records import AfterStep, Afterwards, ReceiptDue
from schemas.messages import KEEP
from schemas.values import AfterOutcome, ErrorCode, Outcome, ResponseStatus

PROVEN: Final = frozenset({"checksum", "etag", "accepted"})
"""The proofs of an owner that compare the content. A size alone is none, and neither is a proof that is not known."""


def tombstone_of(transfer: Transfer, close: CloseReceived) -> WriteTombstone:
    """What is kept of the upload: its outcome, and what is still to be done."""
    if Outcome.read(close.outcome) is not Outcome.COMPLETED:
        return WriteTombstone(Outcome.read(close.outcome))
    return WriteTombstone(Outcome.COMPLETED, begin_after(transfer, close), receipt_due(transfer, close))


def begin_after(transfer: Transfer, close: CloseReceived) -> Afterwards | None:
    """What a close with the outcome `completed` leaves to be done; None where the file is to stay as it is."""
    order = transfer.order
    if order.after == KEEP:
        return None
    due = Afterwards(
        order.after,
        order.file_path,
        order.message_id,
        order.attempt,
        transfer.sequence + 1,
        owner=order.owner,
        source=transfer.source,
        digest=order.digest,
        principal=order.principal,
    )
    missing = _missing(transfer, close)
    if missing is None:
        plan = transfer.plan
        return replace(due, part_size=plan.part_size, content=content_of(transfer.digests))
    return keep_file(due, missing)


def keep_file(due: Afterwards, why: str) -> Afterwards:
    """The file stays as it is, and only the receipt is left to be sent."""
    kept, code = AfterOutcome.KEPT, ErrorCode.AFTER_NOT_POSSIBLE
    return replace(due, step=AfterStep.REPORTED, outcome=kept, code=code, text=why)


def receipt_due(transfer: Transfer, close: CloseReceived) -> ReceiptDue | None:
    """The receipt that the owner asks for; None where it asks for none, or the agent cannot vouch for the object."""
    order, asked, source = transfer.order, close.receipt, transfer.source
    if asked is None or close.proof is None or source is None or _unvouched(transfer, close) is not None:
        return None
    # An agent that makes no receipts needs no statement in its memory.
    from schemas.receipts.statement import subject_of  # noqa: PLC0415

    digests = [transfer.digests[number] for number in transfer.plan.numbers]
    return ReceiptDue(
        order.message_id,
        order.attempt,
        order.owner,
        asked.key,
        asked.completed_at,
        close.proof,
        order.file_path,
        source.size,
        source.mtime_ns,
        order.digest,
        transfer.plan.part_size,
        subject_of(asked.key, order.digest, transfer.plan, digests).digest,
        order.options,
        job=asked.job,
        command_sha256=order.command_sha256,
        principal=order.principal,
    )


def content_of(digests: Mapping[int, str | None]) -> str:
    """One digest of the digests of all parts, by their numbers: it fits into a record of any file."""
    lines = "".join(f"{number} {digest}\n" for number, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _missing(transfer: Transfer, close: CloseReceived) -> str | None:
    """Why the file may not be given up; None when all is there."""
    if close.proof not in PROVEN:
        return f"the owner has not proven the content of the object (proof: {close.proof or 'none'})"
    return _unvouched(transfer, close)


def _unvouched(transfer: Transfer, close: CloseReceived) -> str | None:
    """Why the agent does not know the object part by part; None when it does."""
    if close.attempt != transfer.order.attempt:
        return f"the object is that of attempt {close.attempt}, and the agent sent attempt {transfer.order.attempt}"
    if transfer.ending is None or transfer.ending.status is not ResponseStatus.SUCCESS or transfer.source is None:
        return "the agent did not send every part of this attempt itself"
    if set(transfer.digests) != set(transfer.plan.numbers):
        return "the agent does not have the digest of every part, to compare the file with"
    return None
