"""Event streams: what a stream gets, in which order, and what it costs the others."""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.memory import records as memory
from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.domain.changes import (
    Change,
    ClientConnected,
    ExecutionStateChanged,
    JobStateChanged,
    NumberedChange,
    UploadCreated,
)
from control_plane.domain.selectors import parse
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.errors import BadInput, DatabaseUnavailable, TooManyStreams
from control_plane.services.events import streams as module
from control_plane.services.events.filters import PROGRESS, ChangeFilter, ChangePage, require_types
from control_plane.services.events.streams import PAGE, Encoders, EventStreams, Stream
from control_plane.services.ports.database import Records
from tests.support.databases import a_client, an_upload, changes
from tests.support.fakes import FakeClock

T = TypeVar("T")
EVERYTHING: Final = ChangeFilter()
PATIENCE: Final = 60.0
texts = st.sampled_from(["a", "b", "c"])
meeting: st.SearchStrategy[Change] = st.one_of(
    st.builds(UploadCreated, at=st.just(1.0), client_id=texts, upload_id=texts, job_id=st.none() | texts),
    st.builds(ClientConnected, at=st.just(1.0), client_id=texts),
)


class Yielding(MemoryDatabase):
    """Lets other tasks run before and after each transaction, as a real database does."""

    async def write(self, work: Callable[[Records], T]) -> T:
        await asyncio.sleep(0)
        return await super().write(work)

    async def read(self, work: Callable[[Records], T]) -> T:
        for _ in range(random.randrange(3)):
            await asyncio.sleep(0)
        found = await super().read(work)
        for _ in range(random.randrange(3)):
            await asyncio.sleep(0)
        return found


class Rig:
    """Streams over a database in memory; the frames are texts such as `5 upload.created`."""

    def __init__(self) -> None:
        self.database = Yielding()
        self.encoded = 0
        self.log: list[tuple[str, Mapping[str, Any]]] = []
        encoders = Encoders(
            change=self._change,
            progress=lambda upload: f"{upload.upload_id} {upload.bytes_sent};".encode(),
            start=lambda number: f"start {number};".encode(),
            resync=lambda number: f"resync {number};".encode(),
            keep_alive=b"alive;",
            framed=lambda data: b"[" + data + b"]",
        )
        self.streams = EventStreams(self.database, FakeClock(), lambda *line: self.log.append(line), encoders)

    def _change(self, one: NumberedChange) -> bytes:
        self.encoded += 1
        return f"{one.number} {one.change.name};".encode()

    async def append(self, *changes: Change) -> None:
        await self.database.write(lambda records: records.changes.append(changes))

    async def add(self, count: int) -> None:
        await self.append(*(created(f"u{number}") for number in range(count)))

    async def live(self, where: ChangeFilter = EVERYTHING, last: int | None = None) -> Stream:
        """A stream that the loop feeds; what it got until then was taken from it."""
        stream = await self.streams.open(where, last)
        while not stream.live:
            await got(stream)
            if not stream.live:
                stream.put(await self.streams.catch_up(stream))
        return stream


def created(upload_id: str = "u", client_id: str = "a", job_id: str | None = None) -> UploadCreated:
    return UploadCreated(at=1.0, client_id=client_id, upload_id=upload_id, job_id=job_id)


async def got(stream: Stream) -> list[str]:
    """What a stream sends next."""
    async with asyncio.timeout(PATIENCE):
        data = await stream.next()
    return [] if data is None else data.decode().split(";")[:-1]


def numbers(lines: list[str]) -> list[int]:
    return [int(line.split()[0]) for line in lines if line[0].isdigit()]


async def test_a_stream_begins_with_the_number_after_which_it_sends() -> None:
    rig = Rig()
    await rig.add(3)
    stream = await rig.streams.open(EVERYTHING)
    assert await got(stream) == ["start 3"]


async def test_a_live_stream_gets_the_changes_that_match_in_order() -> None:
    rig = Rig()
    everything, clients = await rig.live(), await rig.live(ChangeFilter(types=frozenset({"client.*"})))
    await rig.append(created(), ClientConnected(at=1.0, client_id="a"), created())
    await rig.streams.feed()
    assert await got(everything) == ["1 upload.created", "2 client.connected", "3 upload.created"]
    assert await got(clients) == ["2 client.connected"]


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (ChangeFilter(), [1, 2, 3, 4, 5]),
        (ChangeFilter(types=frozenset({"upload.created"})), [1, 2]),
        (ChangeFilter(types=frozenset({"job.*", "execution.state_changed"})), [3, 4]),
        (ChangeFilter(clients=frozenset({"a"})), [1, 4]),
        (ChangeFilter(jobs=frozenset({"j"})), [2, 3, 4]),
        (ChangeFilter(jobs=frozenset({"j"}), clients=frozenset({"b"})), [2]),
        (ChangeFilter(uploads=frozenset({"u1"})), [1]),
        (ChangeFilter(selector=parse("site=berlin")), [1, 4]),
        (ChangeFilter(selector=parse("!site")), [2]),
    ],
)
async def test_all_parts_of_a_filter_must_match(where: ChangeFilter, wanted: list[int]) -> None:
    rig = Rig()
    await rig.database.write(
        lambda records: records.clients.save([a_client("a", labels={"site": "berlin"}), a_client("b")])
    )
    await rig.append(
        created("u1"),
        created("u2", "b", "j"),
        JobStateChanged(at=1.0, job_id="j", was=None, state="running", outcome=None),
        ExecutionStateChanged(at=1.0, job_id="j", client_id="a", attempt=1, was=None, state="queued", reason=None),
        ClientConnected(at=1.0, client_id="c"),
    )
    stream = await rig.streams.open(where, 0)
    await got(stream)
    assert numbers((await rig.streams.catch_up(stream)).decode().split(";")[:-1]) == wanted


def test_a_type_that_no_event_has_is_bad_input() -> None:
    assert require_types(["upload.*", PROGRESS], also=(PROGRESS,)) == {"upload.*", PROGRESS}
    for name in ("upload.creatd", "uploads.*", PROGRESS, "*"):
        with pytest.raises(BadInput, match="there are client"):
            require_types([name])


@given(
    page=st.lists(st.one_of(changes, meeting), max_size=12),
    where=st.builds(
        ChangeFilter,
        types=st.frozensets(st.sampled_from(["upload.*", "client.connected", "job.*"])),
        clients=st.frozensets(texts, max_size=3),
        jobs=st.frozensets(texts, max_size=3),
        uploads=st.frozensets(texts, max_size=3),
    ),
)
def test_a_page_finds_what_a_look_at_every_change_finds(page: list[Change], where: ChangeFilter) -> None:
    numbered = [NumberedChange(number, change) for number, change in enumerate(page)]
    assert ChangePage(numbered, {}).wanted(where) == [one for one in numbered if where.matches(one.change, {})]


async def test_a_stream_with_a_selector_that_joins_during_a_read_gets_what_matches() -> None:
    rig = Rig()
    await rig.database.write(lambda records: records.clients.save([a_client("a", labels={"site": "berlin"})]))
    await rig.live()
    selecting = await rig.live(ChangeFilter(selector=parse("site")), 0)
    rig.streams.forget(selecting)
    read, joined = rig.database.read, asyncio.Event()

    async def reading(work: Callable[[Records], T]) -> T:
        found = await read(work)
        if not joined.is_set():
            joined.set()
            rig.streams._live.setdefault(selecting.where, set()).add(selecting)
        return found

    rig.database.read = reading  # type: ignore[method-assign]
    await rig.add(1)
    await rig.streams.feed()
    assert await got(selecting) == ["1 upload.created"]


async def test_a_stream_resumes_after_the_last_event_across_pages() -> None:
    rig = Rig()
    await rig.add(PAGE + 30)
    stream = await rig.streams.open(EVERYTHING, 20)
    seen: list[int] = []
    while len(seen) < PAGE + 10:
        seen += numbers(await got(stream))
    assert seen == list(range(21, PAGE + 31))
    assert stream.live


async def test_an_id_whose_changes_were_pruned_or_never_existed_means_a_resync(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "MAX_CHANGES", 5)
    rig = Rig()
    await rig.add(20)
    for last, first in ((14, "resync 20"), (15, "start 15"), (0, "start 0"), (20, "start 20"), (21, "resync 20")):
        stream = await rig.streams.open(EVERYTHING, last)
        assert await got(stream) == [first]
    assert [facts["last_event_id"] for event, facts in rig.log if event == "stream.resync"] == [14, 21]


async def test_no_stream_misses_or_repeats_a_change_while_others_open_and_end() -> None:
    """Streams open at any moment between the reads of the loop and the commits."""
    rig = Rig()
    await rig.add(7)

    async def commit() -> None:
        for _ in range(120):
            await rig.add(random.randrange(1, 4))
            await asyncio.sleep(0)

    async def loop() -> None:
        while True:
            await rig.streams.feed()
            await asyncio.sleep(0)

    async def follow(last: int | None) -> None:
        for _ in range(random.randrange(200)):
            await asyncio.sleep(0)
        stream = await rig.streams.open(EVERYTHING, last)
        first = await got(stream)
        start = int(first[0].split()[1])
        seen = numbers(first)
        for _ in range(random.randrange(1, 30)):
            if len(seen) > 60:
                break
            seen += numbers(await got(stream))
        stream.end()
        assert seen == list(range(start + 1, start + 1 + len(seen)))

    feeding = asyncio.create_task(loop())
    committing = asyncio.create_task(commit())
    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(follow(random.randrange(1, 7) if number % 2 else None))
        # Streams that open after the last commit would wait for ever without one.
        more = asyncio.create_task(_keep_committing(rig))
    for task in (feeding, committing, more):
        task.cancel()
    assert rig.encoded > 0


async def _keep_committing(rig: Rig) -> None:
    while True:
        await rig.add(1)
        await asyncio.sleep(0.001)


async def test_a_change_is_encoded_once_for_a_thousand_streams() -> None:
    rig = Rig()
    filters = [EVERYTHING, ChangeFilter(clients=frozenset({"a"})), ChangeFilter(types=frozenset({"upload.*"}))]
    streams = [await rig.live(filters[number % 3]) for number in range(1_000)]
    await rig.add(10)
    await rig.streams.feed()
    assert rig.encoded == 10
    for stream in streams:
        assert numbers(await got(stream)) == list(range(1, 11))


async def test_a_stream_that_does_not_keep_up_is_cut_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUFFER", 100)
    rig = Rig()
    slow, good = await rig.live(), await rig.live()
    cuts: list[bool] = []
    slow.on_cut = lambda: cuts.append(True)
    for number in range(1, 11):
        await rig.add(1)
        await rig.streams.feed()
        assert numbers(await got(good)) == [number]
    assert (slow.cut, cuts, good.cut) == (True, [True], False)
    assert await got(slow) == []
    assert [event for event, _ in rig.log] == ["stream.cut"]


async def test_a_caller_that_waits_gets_bytes_without_being_woken_and_in_order() -> None:
    rig = Rig()
    stream = await rig.live()
    written: list[bytes] = []

    def write(data: bytes) -> int:
        written.append(data)
        return 0

    stream.write = write
    await rig.add(1)
    await rig.streams.feed()
    assert written == []
    assert await got(stream) == ["1 upload.created"]
    waiting = asyncio.create_task(got(stream))
    await asyncio.sleep(0)
    await rig.add(1)
    await rig.streams.feed()
    assert (written, waiting.done()) == ([b"[2 upload.created;]"], False)
    stream.end()
    assert await waiting == []


async def test_a_caller_with_too_many_unsent_bytes_is_cut() -> None:
    rig = Rig()
    stream = await rig.live()
    stream.write = lambda _data: module.MAX_BUFFER + 1
    waiting = asyncio.create_task(got(stream))
    await asyncio.sleep(0)
    await rig.add(1)
    await rig.streams.feed()
    assert (await waiting, stream.cut) == ([], True)


async def test_a_stream_that_ends_is_fed_no_longer() -> None:
    rig = Rig()
    stream = await rig.live()
    waiting = asyncio.create_task(got(stream))
    await asyncio.sleep(0)
    stream.end()
    assert await waiting == []
    await rig.add(1)
    await rig.streams.feed()
    assert rig.encoded == 0


async def test_there_are_no_more_streams_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 2)
    rig = Rig()
    first, _ = await rig.streams.open(EVERYTHING), await rig.streams.open(EVERYTHING)
    with pytest.raises(TooManyStreams):
        await rig.streams.open(EVERYTHING)
    first.end()
    assert not (await rig.streams.open(EVERYTHING)).ended


async def test_progress_goes_to_the_streams_that_name_the_upload_when_it_changes() -> None:
    rig = Rig()
    named = await rig.live(ChangeFilter(uploads=frozenset({"u1"})))
    other = await rig.live()
    await _save(rig, an_upload(upload_id="u1", state=State.IN_PROGRESS, bytes_sent=5))
    await rig.streams.feed_progress()
    await rig.streams.feed_progress()
    assert await got(named) == ["u1 5"]
    await _save(rig, an_upload(upload_id="u1", client_id="b", bytes_sent=7))
    await rig.streams.feed_progress()
    assert await got(named) == ["u1 7"]
    rig.streams.forget(other)
    assert not other._waiting


async def test_progress_is_not_read_for_streams_that_do_not_want_it() -> None:
    rig = Rig()
    stream = await rig.live(ChangeFilter(uploads=frozenset({"u1"}), types=frozenset({"upload.created"})))
    await _save(rig, an_upload(upload_id="u1", bytes_sent=5))
    await rig.streams.feed_progress()
    assert not stream._waiting


async def test_no_more_uploads_are_named_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NAMED", 2)
    rig = Rig()
    await rig.live(ChangeFilter(uploads=frozenset({"u1", "u2"})))
    with pytest.raises(TooManyStreams):
        await rig.streams.open(ChangeFilter(uploads=frozenset({"u3"})))


async def test_the_limit_counts_streams_that_still_read_old_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart every stream comes back at once, before one of them is live."""
    monkeypatch.setattr(module, "MAX_NAMED", 2)
    rig = Rig()
    await rig.streams.open(ChangeFilter(uploads=frozenset({"u1", "u2"})), last=0)
    await rig.streams.open(ChangeFilter(uploads=frozenset({"u2"})), last=0)
    with pytest.raises(TooManyStreams):
        await rig.streams.open(ChangeFilter(uploads=frozenset({"u3"})), last=0)


async def test_streams_go_on_after_the_database_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.001)
    rig = Rig()
    stream = await rig.live()
    read = rig.database.read
    broken = [DatabaseUnavailable("away")] * 3

    async def failing(work: Callable[[Records], T]) -> T:
        if broken:
            raise broken.pop()
        return await read(work)

    monkeypatch.setattr(rig.database, "read", failing)
    running = asyncio.create_task(rig.streams.run())
    await rig.add(1)
    lines: list[str] = []
    while not numbers(lines):
        lines += await got(stream)
    running.cancel()
    assert lines == ["alive", "1 upload.created"]
    assert [event for event, _ in rig.log] == ["streams.failed"]


async def _save(rig: Rig, upload: Upload) -> None:
    await rig.database.write(lambda records: records.uploads.add(upload))
