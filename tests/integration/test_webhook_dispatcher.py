"""Deliveries of webhooks over a real database: what is sent, in which order, by whom, and when it is given up."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from unittest.mock import AsyncMock

import pytest
from msgspec.structs import replace
from standardwebhooks.webhooks import Webhook as Verifier

from control_plane.adapters.cursors import encode_cursor
from control_plane.adapters.database import SqlDatabase
from control_plane.domain.access import Principal
from control_plane.domain.changes import Change, ClientConnected, UploadCreated, UploadStateChanged
from control_plane.domain.uploads.model import State
from control_plane.domain.webhooks import PATIENCE, Delivery, DeliveryState, ReceiverAnswer, Webhook
from control_plane.presentation import cloud_event_json
from control_plane.services.errors import BadInput, DatabaseUnavailable, UnknownDelivery, UnknownWebhook
from control_plane.services.events.webhooks import dispatcher as module
from control_plane.services.events.webhooks.dispatcher import LEASE, WebhookDispatcher
from control_plane.services.events.webhooks.service import WebhookInput, WebhookService
from control_plane.services.ports.database import Database, Page
from tests.support.databases import a_client, migrated, sql_database
from tests.support.fakes import FakeClock
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]

OPERATOR: Final = Principal("operator")
OK: Final = ReceiverAnswer(status=200)
BUSY: Final = ReceiverAnswer(status=503, error="HTTP 503")
URL: Final = "https://hooks.example.com/"


@dataclass
class Sender:
    """Answers what a test sets; by number of the change, else the next of `answers`, else 200."""

    sent: list[tuple[str, Mapping[str, str], str]] = field(default_factory=list)
    answers: list[ReceiverAnswer] = field(default_factory=list)
    by_number: dict[str, ReceiverAnswer] = field(default_factory=dict)
    hold: asyncio.Event | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> ReceiverAnswer:
        self.sent.append((url, headers, body.decode()))
        if self.hold is not None:
            await self.hold.wait()
        if headers["webhook-id"] in self.by_number:
            return self.by_number[headers["webhook-id"]]
        return self.answers.pop(0) if self.answers else OK

    def refusal(self, url: str) -> str | None:
        return None if url.startswith("https://") else "https:// is needed"

    @property
    def numbers(self) -> list[int]:
        return [int(headers["webhook-id"]) for _, headers, _ in self.sent]


class Rig:
    """One replica: a dispatcher and the use cases over a database."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        self.database, self.clock, self.sender = database, clock, Sender()
        self.log: list[tuple[str, Mapping[str, Any]]] = []
        self.dispatcher = WebhookDispatcher(
            database,
            clock,
            lambda *line: self.log.append(line),
            self.sender,
            lambda one: cloud_event_json(one, "backhaul/test"),
        )
        self.service = WebhookService(database, clock, self.sender, on_change=self.dispatcher.poke)

    async def webhook(self, **given: Any) -> Webhook:  # noqa: ANN401
        return await self.service.create(OPERATOR, WebhookInput(url=URL, **given))

    async def append(self, *changes: Change) -> None:
        await self.database.write(lambda records: records.changes.append(changes))

    async def turn(self) -> None:
        """Look until nothing more is sent."""
        before = -1
        while len(self.sender.sent) != before:
            before = len(self.sender.sent)
            await self.dispatcher.look()
            await self.finished()

    async def finished(self) -> None:
        await asyncio.gather(*self.dispatcher._tasks)

    async def deliveries(self, webhook: Webhook, state: DeliveryState | None = None) -> list[Delivery]:
        found, _ = await self.service.deliveries(OPERATOR, webhook.webhook_id, state, Page(500))
        return found[::-1]

    def logged(self, event: str) -> int:
        return sum(1 for name, _ in self.log if name == event)


def created(upload_id: str = "u1", client_id: str = "a") -> UploadCreated:
    return UploadCreated(at=1_000.0, client_id=client_id, upload_id=upload_id)


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th pause is n times ten seconds."""
    monkeypatch.setattr(module, "_pause", lambda tries, _answer: 10.0 * tries)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    database = SqlDatabase.open(f"sqlite:///{tmp_path / 'backhaul.db'}", patience=5)
    yield Rig(database, FakeClock())
    await database.close()


async def test_a_change_is_sent_as_a_signed_cloud_event(rig: Rig) -> None:
    webhook = await rig.webhook()
    change = UploadStateChanged(
        at=1_000.5,
        client_id="a",
        upload_id="u1",
        attempt=1,
        was=State.COMPLETING,
        state=State.COMPLETED,
        error=None,
        job_id="j",
    )
    await rig.append(change)
    await rig.turn()
    ((url, headers, body),) = rig.sender.sent
    assert (url, headers["Content-Type"]) == (URL, "application/cloudevents+json; charset=UTF-8")
    assert json.loads(body) == {
        "specversion": "1.0",
        "id": "1",
        "source": "backhaul/test",
        "type": "upload.state_changed",
        "subject": "a/u1",
        "time": "1970-01-01T00:16:40.500Z",
        "datacontenttype": "application/json",
        "data": {
            "at": "1970-01-01T00:16:40.500Z",
            "client_id": "a",
            "upload_id": "u1",
            "attempt": 1,
            "was": "completing",
            "state": "completed",
            "error": None,
            "job_id": "j",
        },
    }
    assert headers["webhook-id"] == "1"
    signature = headers["webhook-signature"]
    assert Verifier(webhook.secret).sign("1", _at(headers["webhook-timestamp"]), body) == signature
    (delivery,) = await rig.deliveries(webhook)
    assert (delivery.state, delivery.status, delivery.tries, delivery.due_at) == (DeliveryState.DELIVERED, 200, 1, None)


def _at(text: str) -> datetime:
    return datetime.fromtimestamp(int(text), UTC)


async def test_a_webhook_gets_the_changes_that_it_wants_from_its_creation_on(rig: Rig) -> None:
    await rig.database.write(
        lambda records: records.clients.save([a_client("a", labels={"site": "berlin"}), a_client("b")])
    )
    await rig.append(created("before"))
    await rig.webhook(types=("upload.*",), selector="site=berlin")
    await rig.append(created("u1", "b"), ClientConnected(at=1.0, client_id="a"), created("u2", "a"))
    await rig.turn()
    assert rig.sender.numbers == [4]


async def test_what_a_restart_interrupts_is_sent_after_it(rig: Rig) -> None:
    webhook = await rig.webhook()
    await rig.append(created("u1"), created("u2"))
    rig.sender.hold = asyncio.Event()
    await rig.dispatcher.look()
    for task in rig.dispatcher._tasks:
        task.cancel()
    again = Rig(rig.database, rig.clock)
    await again.turn()
    assert again.sender.sent == []
    rig.clock.time += LEASE + 1
    await again.turn()
    assert sorted(again.sender.numbers) == [1, 2]
    assert {one.state for one in await again.deliveries(webhook)} == {DeliveryState.DELIVERED}


async def test_changes_of_one_subject_are_sent_in_order_and_others_do_not_wait(rig: Rig) -> None:
    await rig.webhook()
    await rig.append(created("u1"), created("u2"), created("u1"), created("u1"), created("u2"))
    rig.sender.by_number["1"] = BUSY
    await rig.turn()
    assert sorted(rig.sender.numbers) == [1, 2, 5]
    rig.sender.by_number.clear()
    rig.clock.time += 11
    await rig.append(created("u1"))
    await rig.turn()
    assert [number for number in rig.sender.numbers if number in (1, 3, 4, 6)] == [1, 1, 3, 4, 6]


async def test_a_delivery_that_is_refused_for_three_days_is_dead_and_the_next_of_its_subject_follows(rig: Rig) -> None:
    webhook = await rig.webhook()
    await rig.append(created("u1"), created("u1"))
    rig.sender.by_number["1"] = BUSY
    began = rig.clock.time
    while rig.clock.time < began + PATIENCE + 100_000 and not await rig.deliveries(webhook, DeliveryState.DEAD):
        await rig.turn()
        rig.clock.time += 10_000
    (dead,) = await rig.deliveries(webhook, DeliveryState.DEAD)
    assert (dead.number, dead.status, dead.error) == (1, 503, "HTTP 503")
    assert dead.tried_at is not None
    assert dead.tried_at - began >= PATIENCE
    await rig.turn()
    assert rig.sender.numbers[-1] == 2
    assert (rig.logged("webhook.dead"), rig.logged("webhook.delivered")) == (1, 1)


async def test_a_dead_delivery_is_replayed(rig: Rig) -> None:
    webhook = await rig.webhook()
    await rig.append(created("u1"), created("u2"))
    rig.sender.answers = [BUSY, BUSY]
    await rig.turn()
    rig.clock.time += PATIENCE
    rig.sender.answers = [BUSY, BUSY]
    await rig.turn()
    assert len(await rig.deliveries(webhook, DeliveryState.DEAD)) == 2
    again = await rig.service.replay(OPERATOR, webhook.webhook_id, 1)
    assert (again.state, again.tries) == (DeliveryState.WAITING, 0)
    await rig.turn()
    assert rig.sender.numbers[-1] == 1
    assert await rig.service.replay_dead(OPERATOR, webhook.webhook_id) == 1
    await rig.turn()
    assert rig.sender.numbers[-1] == 2
    assert await rig.deliveries(webhook, DeliveryState.DEAD) == []
    assert await rig.service.replay_dead(OPERATOR, webhook.webhook_id) == 0


async def test_a_cursor_beyond_the_integers_of_a_database_is_bad_input(rig: Rig) -> None:
    webhook = await rig.webhook()
    with pytest.raises(BadInput):
        await rig.service.deliveries(OPERATOR, webhook.webhook_id, None, Page(1, encode_cursor((2**63,))))


async def test_a_delivery_that_waits_is_not_replayed(rig: Rig) -> None:
    webhook = await rig.webhook()
    await rig.append(created())
    rig.sender.answers = [BUSY]
    await rig.turn()
    (before,) = await rig.deliveries(webhook)
    assert await rig.service.replay(OPERATOR, webhook.webhook_id, 1) == before
    with pytest.raises(UnknownDelivery):
        await rig.service.replay(OPERATOR, webhook.webhook_id, 2)


async def test_a_receiver_that_answers_again_gets_what_waits_at_once(rig: Rig) -> None:
    webhook = await rig.webhook()
    await rig.append(*(created(f"u{number}") for number in range(5)))
    rig.sender.answers = [BUSY] * 5
    await rig.turn()
    for one in await rig.deliveries(webhook):
        await rig.database.write(lambda records, one=one: records.webhooks.put(_due(one, 9_000.0)))  # type: ignore[misc]
    await rig.append(created("new"))
    await rig.turn()
    assert len(await rig.deliveries(webhook, DeliveryState.DELIVERED)) == 6


def _due(delivery: Delivery, due_at: float) -> Delivery:
    return replace(delivery, due_at=due_at)


async def test_a_clock_that_was_wrong_delays_no_delivery_for_long(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried while the clock was a year ahead, and again at the next clean-up."""
    year = 365 * 86_400
    monkeypatch.setattr(module, "_PRUNE_EVERY", -float(year))
    await rig.webhook()
    rig.clock.time += year
    rig.sender.answers = [BUSY]
    await rig.append(created())
    await rig.dispatcher.look()
    await rig.finished()
    rig.clock.time -= year
    await rig.turn()
    assert rig.sender.numbers == [1, 1]


async def test_a_receiver_that_is_gone_disables_its_webhook(rig: Rig) -> None:
    webhook = await rig.webhook()
    rig.sender.answers = [ReceiverAnswer(status=410, error="HTTP 410 Gone")]
    await rig.append(created())
    await rig.turn()
    await rig.append(created())
    await rig.turn()
    view = await rig.service.webhook(OPERATOR, webhook.webhook_id)
    assert (view.webhook.enabled, view.webhook.note) == (False, "the receiver answered 410 Gone")
    assert rig.sender.numbers == [1]
    enabled = await rig.service.update(OPERATOR, webhook.webhook_id, WebhookInput(enabled=True))
    assert (enabled.webhook.enabled, enabled.webhook.note, enabled.webhook.position) == (True, "", 2)
    await rig.append(created())
    await rig.turn()
    assert rig.sender.numbers == [1, 3]


async def test_a_slow_receiver_leaves_room_for_the_others(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OF_ONE", 2)
    slow = await rig.webhook(types=("client.*",))
    await rig.webhook(types=("upload.*",))
    rig.sender.hold = asyncio.Event()
    await rig.append(*(ClientConnected(at=1.0, client_id=f"c{number}") for number in range(5)), created())
    for _ in range(3):
        await rig.dispatcher.look()
        await asyncio.sleep(0)
    assert max(rig.sender.numbers) == 6
    assert len(rig.sender.sent) == 3
    rig.sender.hold.set()
    await rig.finished()
    await rig.turn()
    assert len(await rig.deliveries(slow, DeliveryState.DELIVERED)) == 5


async def test_receivers_that_do_not_answer_leave_places_to_the_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when all of their requests end at one moment, and the other webhook is the last by its id."""
    monkeypatch.setattr(module, "MAX_OF_ONE", 2)
    monkeypatch.setattr(module, "MAX_AT_ONCE", 2)
    first, last = sorted([(await rig.webhook()).webhook_id for _ in range(2)])
    await rig.service.update(OPERATOR, first, WebhookInput(types=("client.*",)))
    await rig.service.update(OPERATOR, last, WebhookInput(types=("upload.*",)))
    rig.sender.hold = asyncio.Event()
    await rig.append(*(ClientConnected(at=1.0, client_id=f"c{number}") for number in range(9)), created())
    await rig.dispatcher.look()
    rig.sender.hold.set()
    await rig.finished()
    await rig.dispatcher.look()
    await rig.finished()
    assert len(rig.sender.sent) == 4
    assert 10 in rig.sender.numbers


async def test_a_webhook_that_was_disabled_meanwhile_gets_no_more(rig: Rig) -> None:
    webhook = await rig.webhook()
    await rig.append(created())
    await rig.dispatcher.read_log([webhook])
    await rig.service.update(OPERATOR, webhook.webhook_id, WebhookInput(enabled=False))
    await rig.dispatcher.deliver([webhook])
    await rig.finished()
    assert rig.sender.sent == []


async def test_beyond_so_many_waiting_deliveries_the_log_keeps_the_rest(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    webhook = await rig.webhook()
    await rig.append(*(created(f"u{number}") for number in range(8)))
    rig.sender.answers = [BUSY] * 3
    await rig.turn()
    view = await rig.service.webhook(OPERATOR, webhook.webhook_id)
    assert (view.waiting, view.webhook.position) == (3, 3)
    write = AsyncMock(side_effect=rig.database.write)
    monkeypatch.setattr(rig.database, "write", write)
    await rig.dispatcher.look()
    assert write.await_count == 0, "while a receiver is away nothing is written for it"
    rig.clock.time += 100
    await rig.turn()
    assert sorted(rig.sender.numbers) == sorted([1, 2, 3, *range(1, 9)])


async def test_changes_that_are_not_wanted_cost_no_write_but_move_the_position_at_last(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SKIPPED", 10)
    webhook = await rig.webhook(types=("job.*",))
    await rig.append(*(created() for _ in range(9)))
    await rig.turn()
    assert (await rig.service.webhook(OPERATOR, webhook.webhook_id)).webhook.position == 0
    await rig.append(created())
    await rig.turn()
    assert (await rig.service.webhook(OPERATOR, webhook.webhook_id)).webhook.position == 10


async def test_a_webhook_whose_place_in_the_log_was_pruned_goes_on_and_it_is_counted(rig: Rig) -> None:
    await rig.webhook()
    await rig.append(created(), created())
    await rig.append(created())
    await rig.database.write(lambda records: records.changes.prune(2_000.0, 10))
    await rig.turn()
    assert (rig.sender.numbers, rig.logged("webhook.missed")) == ([3], 1)


async def test_a_webhook_that_is_made_in_a_quiet_time_misses_nothing(rig: Rig) -> None:
    """All that was in the log was pruned."""
    await rig.append(created(), created())
    await rig.database.write(lambda records: records.changes.prune(2_000.0, 10))
    await rig.webhook()
    await rig.append(created())
    await rig.turn()
    assert (rig.sender.numbers, rig.logged("webhook.missed")) == ([3], 0)


async def test_a_log_longer_than_a_page_is_read_to_its_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 4)
    await rig.webhook()
    await rig.append(*(created(f"u{number}") for number in range(11)))
    running = asyncio.create_task(rig.dispatcher.run())
    async with asyncio.timeout(60):
        while len(rig.sender.sent) < 11:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    assert sorted(rig.sender.numbers) == list(range(1, 12))


async def test_a_deleted_webhook_gets_nothing_more(rig: Rig) -> None:
    webhook = await rig.webhook()
    await rig.append(created(), created())
    rig.sender.hold = asyncio.Event()
    await rig.dispatcher.look()
    await asyncio.sleep(0)
    await rig.service.delete(OPERATOR, webhook.webhook_id)
    rig.sender.hold.set()
    await rig.finished()
    await rig.turn()
    assert rig.sender.numbers == [1]
    with pytest.raises(UnknownWebhook):
        await rig.service.webhook(OPERATOR, webhook.webhook_id)
    assert await rig.service.webhooks(OPERATOR) == []


async def test_ended_deliveries_are_pruned_after_their_time(rig: Rig) -> None:
    webhook = await rig.webhook()
    await rig.append(created("u1"), created("u2"))
    rig.sender.by_number["1"] = ReceiverAnswer(status=410)
    await rig.turn()
    rig.clock.time += module.DELIVERED_FOR + 1
    assert await rig.dispatcher.prune() == 1
    assert [one.number for one in await rig.deliveries(webhook)] == [1]
    rig.clock.time += module.DEAD_FOR
    assert await rig.dispatcher.prune() == 1
    assert await rig.deliveries(webhook) == []


async def test_an_answer_that_cannot_be_stored_is_sent_again_after_the_lease(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = await rig.webhook()
    await rig.append(created())
    rig.sender.hold = asyncio.Event()
    await rig.dispatcher.look()
    await asyncio.sleep(0)
    with monkeypatch.context() as patch:
        patch.setattr(rig.database, "write", _unavailable)
        rig.sender.hold.set()
        await rig.finished()
    assert rig.logged("webhook.failed") == 1
    rig.clock.time += LEASE + 1
    await rig.turn()
    assert rig.sender.numbers == [1, 1]
    assert [one.state for one in await rig.deliveries(webhook)] == [DeliveryState.DELIVERED]


async def _unavailable(_work: object) -> None:
    message = "away"
    raise DatabaseUnavailable(message)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (WebhookInput(), "needs a url"),
        (WebhookInput(url="http://a/"), "https:// is needed"),
        (WebhookInput(url=URL, types=("upload.creatd",)), "no event has the type"),
    ],
)
async def test_a_wrong_webhook_is_refused(rig: Rig, given: WebhookInput, wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        await rig.service.create(OPERATOR, given)


async def test_a_replica_takes_what_another_one_has_no_room_for(
    sql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OF_ONE", 1)
    clock = FakeClock()
    first, second = Rig(sql_database, clock), Rig(sql_database, clock)
    await first.webhook()
    await first.append(created("u1"), created("u1"), created("u2"))
    first.sender.hold = asyncio.Event()
    await first.dispatcher.look()
    await second.turn()
    first.sender.hold.set()
    await first.finished()
    taken = first.sender.numbers[0]
    assert (sorted([taken, *second.sender.numbers]), taken in (1, 3)) == ([1, 3], True)


async def test_two_replicas_send_nothing_twice(sql_database: Database) -> None:
    """Both look at any moment; the deliveries of one subject keep their order over both."""
    clock = FakeClock()
    rigs = [Rig(sql_database, clock), Rig(sql_database, clock)]
    webhook = await rigs[0].webhook()
    sent: list[tuple[int, str]] = []
    for rig in rigs:
        rig.sender.post = _recording(rig.sender.post, sent)  # type: ignore[method-assign,assignment]
    running = [asyncio.create_task(rig.dispatcher.run()) for rig in rigs]
    for number in range(60):
        await rigs[0].append(created(f"u{number % 7}"), ClientConnected(at=1.0, client_id=f"c{number % 3}"))
        if number % 5 == 0:
            for rig in rigs:
                rig.dispatcher.poke()
    async with asyncio.timeout(60):
        while len(sent) < 120:
            for rig in rigs:
                rig.dispatcher.poke()
            await asyncio.sleep(0.02)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert sorted(number for number, _ in sent) == list(range(1, 121))
    for subject in {one for _, one in sent}:
        numbers = [number for number, about in sent if about == subject]
        assert numbers == sorted(numbers)
    await rigs[0].finished()
    assert webhook.enabled


def _recording(post: Callable[..., Any], sent: list[tuple[int, str]]) -> Callable[[str, Mapping[str, str], bytes], Any]:
    async def recorded(url: str, headers: Mapping[str, str], body: bytes) -> ReceiverAnswer:
        sent.append((int(headers["webhook-id"]), json.loads(body)["subject"]))
        await asyncio.sleep(0.005)
        answer: ReceiverAnswer = await post(url, headers, body)
        return answer

    return recorded
