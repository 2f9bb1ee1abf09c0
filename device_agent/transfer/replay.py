"""A transfer from its journal records, and the records from a transfer.

Rule: pure. `replay` restores the durable fields only.
"""

from typing import assert_never

from msgspec.structs import replace

from device_agent.transfer.model import Grant, Kept, State, Transfer, acknowledge, number_response, settle
from device_agent.transfer.part_set import PartSet
from device_agent.transfer.records import Began, PartKept, Progressed, Settled, TransferRecord


def replay(transfer: Transfer | None, record: TransferRecord) -> Transfer | None:
    """The transfer after one more record; a record of an upload that never began is ignored."""
    if isinstance(record, Began):
        grants = {url.part_number: Grant(url) for url in record.urls}
        return Transfer(record.order, sequence=record.sequence, acknowledged=record.sequence, grants=grants)
    if transfer is None:
        return None
    match record:
        case Progressed():
            return _replay_progress(transfer, record)
        case PartKept():
            return _replay_part(transfer, record)
        case Settled(ranges=ranges):
            return settle(transfer, PartSet.of_ranges(ranges))
        case _:
            assert_never(record)


def _replay_progress(transfer: Transfer, record: Progressed) -> Transfer:
    if record.sequence > transfer.sequence:
        transfer = number_response(transfer, record.sequence)
    transfer = acknowledge(transfer, record.acknowledged)
    state = State.QUEUED if record.ending is None else State.ENDED
    return replace(transfer, source=record.source, ending=record.ending, state=state)


def _replay_part(transfer: Transfer, record: PartKept) -> Transfer:
    if record.content is not None:
        return replace(transfer, contents={**transfer.contents, record.number: record.content})
    digests, kept = transfer.digests, transfer.kept
    if record.digest is not None:
        digests = {**digests, record.number: record.digest}
    if record.etag is not None:
        kept = {**kept, record.number: Kept(record.etag, record.reported_in)}
    grants = {number: grant for number, grant in transfer.grants.items() if number != record.number}
    contents = {number: content for number, content in transfer.contents.items() if number != record.number}
    return replace(transfer, digests=digests, kept=kept, grants=grants, contents=contents)


def snapshot(transfer: Transfer) -> tuple[TransferRecord, ...]:
    """The fewest records from which `replay` restores what is durable."""
    order = transfer.order
    urls = tuple(grant.url for grant in transfer.grants.values()) if order.pregranted else ()
    parts = sorted({*transfer.kept, *transfer.digests})
    return (
        Began(order, transfer.acknowledged, urls),
        progress_record(transfer),
        Settled(order.upload_id, transfer.settled.ranges()),
        *(_part_record(transfer, number) for number in parts),
        *(PartKept(order.upload_id, number, content=content) for number, content in sorted(transfer.contents.items())),
    )


def progress_record(transfer: Transfer) -> Progressed:
    """Everything small that changes, as one record."""
    return Progressed(
        transfer.order.upload_id, transfer.sequence, transfer.acknowledged, transfer.source, transfer.ending
    )


def _part_record(transfer: Transfer, number: int) -> PartKept:
    kept = transfer.kept.get(number)
    etag, reported_in = (None, 0) if kept is None else (kept.etag, kept.reported_in)
    return PartKept(transfer.order.upload_id, number, etag, transfer.digests.get(number), reported_in)
