"""What the device says about an upload, built from its state.

Rule: pure. Two answers with the same sequence tell the same etags.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from device_agent.transfer.model import State, Transfer, bytes_of
from device_agent.transfer.part_set import PartSet
from schemas.codec import GRANT_FILL_SIZE
from schemas.messages import ActiveUpload, CurrentUpload, Hello, Response, UploadReport
from schemas.values import Action, ErrorCode, Outcome, ResponseStatus, WantedPart

_REASONS: Final = {
    State.QUEUED: "other uploads of this device go first",
    State.CHECKING: "comparing the stored parts with the file",
    State.ENDED: "waiting for the owner to close the upload",
}


def latest_response(transfer: Transfer) -> Response | None:
    """The latest question or end, as it stands now; None before anything was said."""
    if transfer.ending is not None:
        return _ending(transfer)
    if transfer.request is None or not transfer.request.sequence:
        return None
    return Response(
        message_id=transfer.order.message_id,
        action=Action.DOWNLOAD_FILE,
        status=ResponseStatus.IN_PROGRESS,
        sequence=transfer.sequence,
        payload=_report(transfer, _wanted(transfer)),
    )


def outcome_response(message_id: str, upload_id: str, attempt: int, outcome: str) -> Response:
    """The answer to a command for a tombstone."""
    status = {
        Outcome.COMPLETED: ResponseStatus.SUCCESS,
        Outcome.CANCELLED: ResponseStatus.CANCELLED,
        Outcome.REJECTED: ResponseStatus.REJECTED,
    }.get(Outcome.read(outcome), ResponseStatus.ERROR)
    failed = status in {ResponseStatus.ERROR, ResponseStatus.REJECTED}
    return Response(
        message_id=message_id,
        action=Action.DOWNLOAD_FILE,
        status=status,
        payload=UploadReport(upload_id=upload_id, attempt=attempt),
        error=ErrorCode.UPLOAD_GONE if failed else None,
        message=f"the upload was closed: {outcome}" if failed else None,
    )


def progress_of(transfer: Transfer, now: float, in_flight: int = 0) -> CurrentUpload:
    """The entry in a Status; `in_flight` are bytes of unfinished parts."""
    about = CurrentUpload(transfer.order.upload_id, transfer.order.attempt, transfer.order.file_path)
    reason = wait_reason(transfer, now)
    if transfer.source is None:
        return CurrentUpload(about.upload_id, about.attempt, about.file_path, reason=reason)
    plan, done = transfer.plan, transfer.done
    sent = min(bytes_of(plan, done) + in_flight, plan.file_size)
    share = sent / plan.file_size if plan.file_size else float(transfer.complete)
    return CurrentUpload(
        about.upload_id,
        about.attempt,
        about.file_path,
        progress=round(100 * share, 1),
        bytes_sent=sent,
        file_size=plan.file_size,
        completed_parts=len(done),
        total_parts=plan.total,
        reason=reason,
    )


def wait_reason(transfer: Transfer, now: float) -> str | None:
    """What a waiting upload waits for; None while it makes its way."""
    match transfer.state:
        case State.OPENING if transfer.order.options.compression != "none":
            reason: str | None = "compressing the file first"
        case State.REQUESTING if transfer.awaiting_grant:
            reason = "waiting for the owner to grant the next parts"
        case State.WAITING:
            reason = _named_wait(transfer, now)
        case State.SENDING if not transfer.in_flight:
            # Every sender is busy elsewhere. Unsaid, that would be silence, and silence is given up.
            reason = _REASONS[State.QUEUED]
        case _:
            reason = _REASONS.get(transfer.state)
    return reason


def _named_wait(transfer: Transfer, now: float) -> str:
    if transfer.hold_until > now:
        latest = max(transfer.retries.values(), key=lambda retries: retries.until, default=None)
        why = f"{latest.text}; " if latest is not None and latest.text else ""
        return f"{why}the store is left alone, {transfer.hold_until - now:.0f} s are left"
    texts = [retries for number, retries in transfer.retries.items() if number in transfer.startable]
    if texts:
        first = min(texts, key=lambda retries: retries.until)
        return f"{first.text}; again in {max(0.0, first.until - now):.0f} s"
    return f"the owner granted nothing; asking again in {max(0.0, transfer.request_after - now):.0f} s"


def _ending(transfer: Transfer) -> Response | None:
    ending = transfer.ending
    if ending is None:
        return None
    return Response(
        message_id=transfer.order.message_id,
        action=Action.DOWNLOAD_FILE,
        status=ending.status,
        sequence=transfer.sequence,
        payload=_report(transfer, ()),
        error=ending.code,
        message=ending.text,
    )


def _wanted(transfer: Transfer) -> tuple[WantedPart, ...]:
    request = transfer.request
    if request is None:
        return ()
    plan, sent = transfer.plan, transfer.done | PartSet.of(transfer.in_flight)
    return tuple(
        WantedPart(number, plan.part(number).size, transfer.offered.get(number))
        for number in request.numbers
        if number not in sent
    )


def _report(transfer: Transfer, wanted: tuple[WantedPart, ...]) -> UploadReport:
    order = transfer.order
    return UploadReport(
        upload_id=order.upload_id,
        attempt=order.attempt,
        owner=order.owner,
        file_path=order.file_path,
        file_size=None if transfer.source is None else transfer.source.size,
        fingerprint=transfer.source,
        chunk_size=order.chunk_size,
        digest=order.digest,
        options=order.options,
        metadata=order.metadata,
        etags={n: kept.etag for n, kept in sorted(transfer.kept.items()) if 0 < kept.said <= transfer.sequence},
        wanted_parts=wanted,
    )


_ROOM: Final = GRANT_FILL_SIZE - 1024
_encoder: Final = msgspec.json.Encoder()


def active_upload(transfer: Transfer) -> ActiveUpload:
    """One upload's entry."""
    order, ending = transfer.order, transfer.ending
    status = ResponseStatus.IN_PROGRESS if ending is None else ending.status
    return ActiveUpload(order.upload_id, order.attempt, transfer.sequence, status, order.owner)


def hello_pages(message_id: str, install_id: str, transfers: Iterable[Transfer]) -> Iterator[Response]:
    """Hello as one or more responses under 96 KiB each; all but the last say that more follow."""
    pages: list[list[ActiveUpload]] = [[]]
    size = 0
    for transfer in transfers:
        entry = active_upload(transfer)
        length = len(_encoder.encode(entry)) + 1
        if size + length > _ROOM:
            pages.append([])
            size = 0
        size += length
        pages[-1].append(entry)
    for number, page in enumerate(pages, 1):
        yield Response(
            message_id=message_id if number == 1 else f"{message_id}.{number}",
            action=Action.HELLO,
            status=ResponseStatus.SUCCESS,
            payload=Hello(install_id, tuple(page), number < len(pages)),
        )
