"""What a close leaves to be done with the file of an upload: delete it, move it, or nothing.

Rule: pure. Only what is proven is given up: the owner has proven the object by its content, this attempt has sent every
part, and the agent has the digest of each, to compare the file with.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from device_agent.transfer.events import CloseReceived
from device_agent.transfer.model import Transfer
from device_agent.transfer.records import AfterStep, Afterwards
from schemas.messages import KEEP
from schemas.values import AfterOutcome, ErrorCode, ResponseStatus

PROVEN: Final = frozenset({"checksum", "etag", "accepted"})
"""The proofs of an owner that compare the content. A size alone is none, and neither is a proof that is not known."""


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


def content_of(digests: Mapping[int, str | None]) -> str:
    """One digest of the digests of all parts, by their numbers: it fits into a record of any file."""
    lines = "".join(f"{number} {digest}\n" for number, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _missing(transfer: Transfer, close: CloseReceived) -> str | None:
    """Why the file may not be given up; None when all is there."""
    if close.attempt != transfer.order.attempt:
        return f"the object is that of attempt {close.attempt}, and the agent sent attempt {transfer.order.attempt}"
    if close.proof not in PROVEN:
        return f"the owner has not proven the content of the object (proof: {close.proof or 'none'})"
    if transfer.ending is None or transfer.ending.status is not ResponseStatus.SUCCESS or transfer.source is None:
        return "the agent did not send every part of this attempt itself"
    if set(transfer.digests) != set(transfer.plan.numbers):
        return "the agent does not have the digest of every part, to compare the file with"
    return None
