"""Brokers of bad manners against the control plane's messenger: it works within their terms, or names the reason.

Rule: what is expected of a kind is in `MANNERS`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from broker.server import Broker
from control_plane.adapters.mqtt import messenger as module
from control_plane.adapters.mqtt.messenger import MqttMessenger, MqttSettings
from control_plane.services.errors import BrokerRefused, MessengerDown
from control_plane.services.ports.messenger import Delivered
from schemas.topics import Channel, Topics
from tests.support.bad_manners import MANNERS, BadBroker, Manners
from tests.support.brokers import mosquitto, started
from tests.support.mqtt_packets import Connect, Property
from tests.support.mqtt_wire import connected

__all__ = ["mosquitto"]

WORKS: Final = sorted(kind for kind, manners in MANNERS.items() if not manners.at_plane)
NAMES_ITS_REASON: Final = sorted(set(MANNERS) - set(WORKS))


class _Site:
    """A messenger behind a broker of bad manners."""

    def __init__(self, broker: BadBroker, topics: Topics, *, announces: bool, now: Callable[[], float]) -> None:
        self.broker = broker
        self.received: list[Delivered] = []
        self.log: list[tuple[str, Mapping[str, object]]] = []
        self.messenger = MqttMessenger(
            MqttSettings(url=broker.url, announces=announces),
            topics,
            lambda event, facts: self.log.append((event, facts)),
            now=now,
        )


@asynccontextmanager
async def running(
    mosquitto: Broker,
    manners: Manners,
    root: str,
    *,
    announces: bool = True,
    now: Callable[[], float] = time.monotonic,
) -> AsyncIterator[_Site]:
    with BadBroker(mosquitto.address.port, manners) as broker:
        site = _Site(broker, Topics(f"terms/{root}"), announces=announces, now=now)
        loop = asyncio.create_task(site.messenger.run(site.received.append))
        try:
            yield site
        finally:
            loop.cancel()
            done, _ = await asyncio.wait({loop}, timeout=60)
            assert done, "a cancelled messenger ends"
            with suppress(asyncio.CancelledError):
                await loop


async def until(fact: Callable[[], bool], what: str, patience: float = 60) -> None:
    deadline = time.monotonic() + patience
    while not fact():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that a busy machine keeps, where every answer comes."""
    monkeypatch.setattr(module, "TIMEOUT", 60.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short limits, so that a broker that does not answer is found soon."""
    monkeypatch.setattr(module, "TIMEOUT", 1.0)
    monkeypatch.setattr(module, "KEEPALIVE", 2)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("kind", WORKS)
async def test_the_control_plane_works_within_the_terms_of_the_broker(mosquitto: Broker, kind: str) -> None:
    """Many messages at once, as large as a message may be, a retained one among them: and no limit is exceeded."""
    async with running(mosquitto, MANNERS[kind], f"works-{kind.replace(' ', '-')}") as site:
        await asyncio.wait_for(site.messenger.up(), 60)
        payload = b"x" * site.messenger.max_message_size
        sending = [site.messenger.publish(Channel.COMMAND, f"{number:064}", payload) for number in range(3)]
        await asyncio.gather(*sending, site.messenger.publish(Channel.PRESENCE, "one", b""))
        await until(lambda: len(site.broker.published) >= 5, "the birth")
        assert site.messenger.problem is None
        assert site.broker.violations == []
        assert len(site.broker.connects) == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", NAMES_ITS_REASON)
async def test_readiness_names_why_the_broker_cannot_be_used(mosquitto: Broker, kind: str) -> None:
    reason = MANNERS[kind].at_plane
    async with running(mosquitto, MANNERS[kind], f"names-{kind.replace(' ', '-')}") as site:
        await until(lambda: reason in (site.messenger.problem or ""), f"a problem that names {reason!r}")
        assert any(reason in str(facts.get("error")) for _, facts in site.log)


@pytest.mark.usefixtures("patient")
async def test_a_message_over_the_limit_of_the_broker_fails_alone(mosquitto: Broker) -> None:
    """What the CONNACK announces is obeyed: one message that is too large must not disconnect every client."""
    async with running(mosquitto, MANNERS["small packets"], "large") as site:
        await asyncio.wait_for(site.messenger.up(), 60)
        with pytest.raises(BrokerRefused, match=r"takes 40\d\d bytes at most"):
            await site.messenger.publish(Channel.COMMAND, "one", b"x" * 5000)
        await site.messenger.publish(Channel.COMMAND, "one", b"x" * 2000)
        assert (site.broker.violations, len(site.broker.connects)) == ([], 1)


@pytest.mark.usefixtures("quick")
async def test_a_message_that_was_given_up_keeps_its_place_in_flight(mosquitto: Broker) -> None:
    """Receive Maximum counts what the broker has not acknowledged, not what the sender still waits for."""
    manners = Manners(keeps_pubacks=True, announces={Property.RECEIVE_MAXIMUM: 2})
    async with running(mosquitto, manners, "given-up") as site:
        site.messenger._settings = MqttSettings(url=site.broker.url, announces=False)
        await asyncio.wait_for(site.messenger.up(), 60)
        for _ in range(3):
            with pytest.raises(MessengerDown):
                await site.messenger.publish(Channel.COMMAND, "one", b"{}")
        assert site.broker.violations == []


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("lasting", "pauses"), [(60.0, [1, 2, 3, 4]), (0.0, [0, 0, 0, 0])])
async def test_only_a_connection_that_lasted_makes_the_next_pause_short(
    mosquitto: Broker, monkeypatch: pytest.MonkeyPatch, lasting: float, pauses: list[int]
) -> None:
    """A broker that ends each connection after SUBACK is no reason for a storm of connects.

    Nor of births: every client answers a birth with a hello.
    """
    waited: list[int] = []

    def jitter(tries: int, **_: float) -> float:
        waited.append(tries)
        return 0.01

    monkeypatch.setattr(module, "full_jitter", jitter)
    monkeypatch.setattr(module, "LASTING", lasting)
    async with running(mosquitto, MANNERS["ends after SUBACK"], "storm") as site:
        await until(lambda: len(waited) >= 4, "four connections")
        births = [topic for topic in site.broker.published if topic.endswith("birth")]
        assert (waited[:4], len(births) <= 1) == (pauses, True)


@pytest.mark.usefixtures("quick")
async def test_readiness_is_an_answer_of_late_and_not_a_flag(mosquitto: Broker) -> None:
    """The connection is open, its subscriptions were granted, and the broker answers nothing.

    The messenger's clock is twice as fast as the one by which the connection ends after the keep alive: else that end
    can come at the moment when the silence would first show.
    """
    # A birth that is not answered would end the connection before the keep alive does.
    async with running(mosquitto, MANNERS["deaf"], "deaf", announces=False, now=lambda: 2 * time.monotonic()) as site:
        await until(lambda: "without an answer" in (site.messenger.problem or ""), "a problem of silence")
        await until(lambda: len(site.broker.connects) >= 2, "the next connection")
        assert ("broker.failed", {"error": "the connection was lost: Keep alive timeout"}) in site.log


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["deaf", "resets at a publish", "keeps PUBACKs", "deaf at once"])
async def test_a_cancelled_messenger_ends_in_any_state(mosquitto: Broker, kind: str) -> None:
    """A cancellation is never taken for a lost connection: the task ends as cancelled, at whatever await it was."""
    with BadBroker(mosquitto.address.port, MANNERS[kind]) as broker:
        for at in range(12):
            messenger = MqttMessenger(MqttSettings(url=broker.url), Topics("terms/cancel"), lambda *_: None)
            loop = asyncio.create_task(messenger.run(lambda _: None))
            await asyncio.sleep(at * 0.01)
            loop.cancel()
            done, _ = await asyncio.wait({loop}, timeout=60)
            assert done
            assert loop.cancelled()


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_broker_that_is_killed_under_load_leaves_no_deaf_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reset while messages of QoS 1 are on their way: the next connection delivers, within seconds each time."""
    monkeypatch.setattr(module, "LASTING", 0.0)
    with started(tmp_path, "mosquitto") as broker:
        topics, received = Topics("terms/killed"), list[Delivered]()
        messenger = MqttMessenger(MqttSettings(url=broker.address.url), topics, lambda *_: None)
        loop = asyncio.create_task(messenger.run(received.append))

        async def flood() -> None:
            while True:
                with suppress(MessengerDown):
                    await asyncio.gather(
                        *(messenger.publish(Channel.COMMAND, f"{number}", b"x" * 20_000) for number in range(50))
                    )
                await asyncio.sleep(0.001)

        load = asyncio.create_task(flood())
        try:
            for number in range(30):
                await until(lambda: messenger.problem is None, "the connection")
                await asyncio.sleep(0.05)
                await asyncio.to_thread(broker.kill)
                await asyncio.to_thread(broker.start)
                await until(lambda: messenger.problem is None, "the next connection")
                with connected(broker.address.port, Connect("device")) as wire:
                    wire.publish(topics.response("one"), str(number).encode())
                await until(lambda: bool(received) and received[-1].payload == b"%d" % number, "its delivery")  # noqa: B023
        finally:
            for task in (load, loop):
                task.cancel()
            await asyncio.wait({load, loop}, timeout=60)
            assert loop.cancelled()
