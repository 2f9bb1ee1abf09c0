"""The responses about an upload, and the hello that lists all of them, built from the state.

Rule: pure. Two responses with the same sequence carry the same etags.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from device_agent.transfer.model import State, Transfer, bytes_of
from schemas.codec import GRANT_FILL_SIZE
from schemas.messages import MAX_HELLO_PAGE, ActiveUpload, CurrentUpload, Hello, Response, UploadReport
from schemas.values import Action, ErrorCode, Outcome, ResponseStatus, WantedPart

_BUSY: Final = "other uploads of this device go first"
_REASONS: Final = {
    State.QUEUED: _BUSY,
    State.CHECKING: "comparing the stored parts with the file",
    State.ENDED: "waiting for the owner to close the upload",
}
_REPEATED: Final = 2
"""URLs that expire before any part is stored: the first may have waited, the second shows that it is the rule."""

_HELLO_HEAD: Final = 512
"""Bytes of a hello beside its entries."""

_encoder: Final = msgspec.json.Encoder()


def latest_response(transfer: Transfer) -> Response | None:
    """The latest request or end, with the present state; None before the first one."""
    if transfer.ending is not None:
        return _response(transfer, transfer.ending.status, (), transfer.ending.code, transfer.ending.text)
    if transfer.request is None or not transfer.request.sequence:
        return None
    return _response(transfer, ResponseStatus.IN_PROGRESS, _wanted(transfer))


def outcome_response(message_id: str, upload_id: str, attempt: int, outcome: str) -> Response:
    """The answer to a command for an upload of which only a tombstone is left."""
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
    """The entry of this upload in a Status; `in_flight` are the sent bytes of unfinished parts."""
    order, reason = transfer.order, wait_reason(transfer, now)
    if transfer.source is None:
        return CurrentUpload(order.upload_id, order.attempt, order.file_path, reason=reason)
    plan, done = transfer.plan, transfer.done
    sent = min(bytes_of(plan, done) + in_flight, plan.file_size)
    share = sent / plan.file_size if plan.file_size else float(transfer.complete)
    return CurrentUpload(
        order.upload_id,
        order.attempt,
        order.file_path,
        progress=round(100 * share, 1),
        bytes_sent=sent,
        file_size=plan.file_size,
        completed_parts=len(done),
        total_parts=plan.total,
        reason=reason,
    )


def wait_reason(transfer: Transfer, now: float) -> str | None:
    """The reason why an upload waits; None while it makes progress."""
    if transfer.barred is not None and transfer.state not in {State.CHECKING, State.ENDED}:
        # Also while parts are in flight: the owner learns at once what it waits for.
        return transfer.barred
    match transfer.state:
        case State.QUEUED if transfer.hold is not None:
            reason: str | None = transfer.hold.reason
        case State.OPENING if transfer.order.options.compression != "none":
            reason = "compressing the file first"
        case State.REQUESTING if transfer.awaiting_grant:
            reason = "waiting for the owner to grant the next parts"
        case State.WAITING:
            reason = _named_wait(transfer, now)
        case State.SENDING if transfer.renewals >= _REPEATED:
            reason = (
                f"granted URLs expired {transfer.renewals} times before a part was stored: "
                "the connection is too slow for the life of a URL (PRESIGNED_URL_EXPIRY)"
            )
        case State.SENDING if not transfer.in_flight:
            # Every sender is busy with other uploads. Without a report the owner would give this one up as silent.
            reason = _BUSY
        case _:
            reason = _REASONS.get(transfer.state)
    return reason


def _named_wait(transfer: Transfer, now: float) -> str:
    if transfer.paused_until > now:
        latest = max(transfer.retries.values(), key=lambda retry: retry.until, default=None)
        why = f"{latest.text}; " if latest is not None and latest.text else ""
        return f"{why}the object store is paused, {transfer.paused_until - now:.0f} s are left"
    retries = [retry for number, retry in transfer.retries.items() if number in transfer.startable]
    if retries:
        first = min(retries, key=lambda retry: retry.until)
        return f"{first.text}; again in {max(0.0, first.until - now):.0f} s"
    if transfer.hold is not None:
        return f"{transfer.hold.reason}; next request in {max(0.0, transfer.hold.until - now):.0f} s"
    return f"the owner granted nothing; next request in {max(0.0, transfer.request_after - now):.0f} s"


def _response(
    transfer: Transfer,
    status: ResponseStatus,
    wanted: tuple[WantedPart, ...],
    error: ErrorCode | None = None,
    message: str | None = None,
) -> Response:
    return Response(
        message_id=transfer.order.message_id,
        action=Action.DOWNLOAD_FILE,
        status=status,
        sequence=transfer.sequence,
        payload=_report(transfer, wanted),
        error=error,
        message=message,
    )


def _wanted(transfer: Transfer) -> tuple[WantedPart, ...]:
    request = transfer.request
    if request is None:
        return ()
    plan, sent = transfer.plan, transfer.done | transfer.in_flight
    return tuple(
        WantedPart(number, plan.part(number).size, transfer.offered.get(number))
        for number in request.numbers
        if number not in sent
    )


def _report(transfer: Transfer, wanted: tuple[WantedPart, ...]) -> UploadReport:
    order = transfer.order
    reported = {n: kept.etag for n, kept in sorted(transfer.kept.items()) if 0 < kept.reported_in <= transfer.sequence}
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
        etags=reported,
        wanted_parts=wanted,
    )


def hello_pages(
    message_id: str, install_id: str, transfers: Iterable[Transfer], *, room: int = GRANT_FILL_SIZE
) -> Iterator[Response]:
    """Hello as responses under 96 KiB and `room` bytes, of 512 uploads at most; all but the last have `more` set."""
    most = min(GRANT_FILL_SIZE, room) - _HELLO_HEAD
    pages: list[list[ActiveUpload]] = [[]]
    size = 0
    for transfer in transfers:
        entry = _active_upload(transfer)
        length = len(_encoder.encode(entry)) + 1
        if pages[-1] and (size + length > most or len(pages[-1]) == MAX_HELLO_PAGE):
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


def _active_upload(transfer: Transfer) -> ActiveUpload:
    order, ending = transfer.order, transfer.ending
    status = ResponseStatus.IN_PROGRESS if ending is None else ending.status
    return ActiveUpload(order.upload_id, order.attempt, transfer.sequence, status, order.owner)
