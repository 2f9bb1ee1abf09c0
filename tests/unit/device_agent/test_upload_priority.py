"""Which upload goes first on the device: by priority at each part boundary, and small files beside large ones."""

import pytest

from device_agent.transfer.events import MeasureSource, PartStored, PutPart, Seen
from device_agent.transfer.model import State
from device_agent.uploads import MAX_ADMITTED, SMALL, SMALL_SLOTS, Run
from schemas.parts import MIB
from tests.unit.device_agent.device import fingerprint
from tests.unit.device_agent.upload_table import UploadTable, table

__all__ = ["table"]

LARGE = 1000 * MIB


def begin(table: UploadTable, name: str, size: int, priority: int = 0) -> Run:
    table.sizes[name] = size
    run = table.download(name, options={"priority": priority})
    assert run is not None
    return run


def settle(table: UploadTable) -> None:
    """Open, measure and digest whatever has a slot."""
    for _ in range(3):
        table.uploads.schedule(1.0)
        table.flush()


def grant(table: UploadTable, name: str, parts: int) -> None:
    urls = [{"part_number": number, "url": "https://s/1"} for number in range(1, parts + 1)]
    table.command("grant_parts", upload_id=name, attempt=1, presigned_urls=urls, acknowledges=1)


def store(table: UploadTable, run: Run) -> list[str]:
    """One part of this upload is stored; the uploads whose parts begin then."""
    table.uploads.effects.clear()
    table.uploads._sending -= 1
    number = min(run.transfer.in_flight)
    seen = Seen(fingerprint(table.sizes[run.upload_id]))
    table.uploads.handle(run, PartStored(now=1.0, number=number, etag='"e"', seen=seen))
    table.uploads.schedule(1.0)
    return [run.upload_id for run, effect in table.uploads.effects if isinstance(effect, PutPart)]


def sending(table: UploadTable) -> list[Run]:
    """As many large uploads as have slots, with a part in flight each."""
    runs = [begin(table, f"large{number}", LARGE) for number in range(MAX_ADMITTED)]
    settle(table)
    for run in runs:
        grant(table, run.upload_id, 12)
    table.uploads.schedule(1.0)
    assert [len(run.transfer.in_flight) for run in runs] == [1] * MAX_ADMITTED
    return runs


def test_a_higher_priority_is_opened_at_once_and_sent_at_the_next_part_boundary(table: UploadTable) -> None:
    low = sending(table)
    urgent = begin(table, "urgent", LARGE, priority=5)
    settle(table)
    assert urgent.transfer.state is State.REQUESTING
    grant(table, "urgent", 12)
    assert [store(table, run) for run in low] == [["urgent"]] * 4


def test_a_lower_priority_waits_and_an_equal_one_too(table: UploadTable) -> None:
    sending(table)
    later = [begin(table, "low", LARGE, priority=-1), begin(table, "equal", LARGE)]
    settle(table)
    assert [run.transfer.state for run in later] == [State.QUEUED] * 2


def test_idle_senders_serve_a_lower_priority(table: UploadTable) -> None:
    first, second = begin(table, "high", 5 * MIB, priority=9), begin(table, "low", LARGE)
    settle(table)
    grant(table, "high", 1)
    grant(table, "low", 12)
    table.uploads.schedule(1.0)
    assert (len(first.transfer.in_flight), len(second.transfer.in_flight)) == (1, 3)


def test_a_small_file_does_not_wait_behind_large_ones(table: UploadTable) -> None:
    large = sending(table)
    small = begin(table, "small", SMALL)
    settle(table)
    assert small.transfer.state is State.REQUESTING
    grant(table, "small", 1)
    assert store(table, large[0]) == ["small"]
    assert store(table, large[1]) != ["small"]


def test_a_large_file_is_measured_once_and_waits(table: UploadTable) -> None:
    sending(table)
    large = begin(table, "another", SMALL + 1)
    table.uploads.schedule(1.0)
    table.uploads.schedule(1.0)
    asked = [run for run, effect in table.uploads.effects if isinstance(effect, MeasureSource)]
    assert asked == [large]
    settle(table)
    assert (large.transfer.state, large.transfer.measured) == (State.QUEUED, SMALL + 1)


def test_small_files_have_few_slots_beside_those_of_all(table: UploadTable) -> None:
    sending(table)
    small = [begin(table, f"small{number}", 1) for number in range(10)]
    settle(table)
    assert [run.transfer.state is State.REQUESTING for run in small] == [True] * SMALL_SLOTS + [False] * 8


@pytest.mark.parametrize("count", [2, 3])
def test_uploads_of_one_priority_take_turns(table: UploadTable, count: int) -> None:
    table.uploads._workers = 1
    runs = [begin(table, f"u{number}", LARGE) for number in range(count)]
    settle(table)
    for run in runs:
        grant(table, run.upload_id, 12)
    table.uploads.schedule(1.0)
    served = ["u0"]
    for _ in range(2 * count):
        served += store(table, next(run for run in runs if run.upload_id == served[-1]))
    assert served == [f"u{number % count}" for number in range(2 * count + 1)]


def test_a_held_upload_takes_no_slot(table: UploadTable) -> None:
    runs = [begin(table, f"held{number}", LARGE) for number in range(MAX_ADMITTED)]
    settle(table)
    for run in runs:
        wait = {"reason": "outside of the window", "for_seconds": 3_600}
        table.command("grant_parts", upload_id=run.upload_id, attempt=1, acknowledges=1, wait=wait)
    other = begin(table, "other", LARGE)
    settle(table)
    assert [run.transfer.state for run in runs] == [State.WAITING] * MAX_ADMITTED
    assert other.transfer.state is State.REQUESTING


def test_a_grant_changes_the_rate_of_parts_in_flight(table: UploadTable) -> None:
    [run, *_] = sending(table)
    assert run.session.rate is None
    table.command("grant_parts", upload_id=run.upload_id, attempt=1, acknowledges=1, max_bytes_per_second=5_000)
    assert run.session.rate == 5_000
