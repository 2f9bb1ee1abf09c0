"""What a simulated device answers to each command, above all to one that is repeated.

Rule: silence is no answer: an owner counts it, and gives the upload up after three step timers.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from msgspec.structs import replace

from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.device import SimulatedDevice
from control_plane.cli.simulate.environment import Counters, Environment
from control_plane.cli.simulate.file import files_of
from control_plane.cli.simulate.http_pool import HttpAnswer, HttpPool
from control_plane.cli.simulate.packets import Publish
from schemas.codec import decode_response, encode
from schemas.messages import (
    AboutUpload,
    CancelUpload,
    CloseUpload,
    Command,
    DownloadFile,
    GrantParts,
    Response,
    UploadConfig,
    UploadReport,
    Wait,
)
from schemas.parts import MIN_CHUNK_SIZE
from schemas.topics import Topics
from schemas.values import Action, ErrorCode, PresignedPart, ResponseStatus

TOPICS = Topics()
DOWNLOAD = DownloadFile(upload_config=UploadConfig(upload_id="u", attempt=2, owner="control-plane"))
GRANT = GrantParts(
    upload_id="u", attempt=2, acknowledges=1, presigned_urls=(PresignedPart(1, "http://store.example/key"),)
)
ACTIONS = {
    DownloadFile: Action.DOWNLOAD_FILE,
    GrantParts: Action.GRANT_PARTS,
    CancelUpload: Action.CANCEL_UPLOAD,
    CloseUpload: Action.CLOSE_UPLOAD,
}


class Store:
    """Answers each PUT as soon as it may."""

    def __init__(self) -> None:
        self.status = 200
        self.answers = asyncio.Event()
        self.answers.set()

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        assert (method, url, bool(headers), len(body)) == ("PUT", GRANT.urls[0].url, True, 100)
        await self.answers.wait()
        return HttpAnswer(self.status, {"etag": '"e"'}, b"")


class Site:
    """One connected device, which has one file of one part; `take` returns what it published since the last look."""

    def __init__(self, size: int = 100) -> None:
        self.store = Store()
        self.counters = Counters()
        self._published: list[Response] = []
        http = cast("HttpPool", self.store)
        self.device = SimulatedDevice("d", Environment(TOPICS, files_of(1, size), http, self.counters, 1))
        self.device.connected(cast("MqttConnection", self))
        self._published.clear()

    def subscribe(self, _filters: object) -> int:
        return 1

    def publish(self, topic: bytes, payload: bytes, **_options: Any) -> int:  # noqa: ANN401
        if topic.endswith(b"/response"):
            self._published.append(decode_response(payload))
        return 1

    def receive(self, payload: AboutUpload) -> list[Response]:
        command = Command("m", ACTIONS[type(payload)], cast("Any", payload))
        self.device.received(Publish(TOPICS.command("d"), encode(command), 1, retained=False))
        return self.take()

    def take(self) -> list[Response]:
        published = self._published[:]
        self._published.clear()
        return published

    async def sent(self) -> list[Response]:
        """Give what is under way the turns that it needs."""
        for _ in range(10):
            await asyncio.sleep(0)
        return self.take()


def told(responses: list[Response]) -> list[tuple[str, int | None, str | None]]:
    return [(one.status, one.sequence, one.error) for one in responses]


OFFER = (ResponseStatus.IN_PROGRESS, 1, None)
SUCCESS = (ResponseStatus.SUCCESS, 2, None)


async def test_a_grant_that_is_repeated_after_the_end_is_answered_with_the_end() -> None:
    """The success is lost when the control plane is killed before it commits it: then it grants the parts again."""
    site = Site()
    assert told(site.receive(DOWNLOAD)) == [OFFER]
    assert site.receive(GRANT) == []
    first = await site.sent()
    assert told(first) == [SUCCESS]
    assert site.receive(GRANT) == first
    assert site.receive(DOWNLOAD) == first
    assert site.receive(CancelUpload(upload_id="u", attempt=2)) == first
    assert site.counters.puts == 1
    site.receive(CloseUpload(upload_id="u", attempt=2, outcome="completed"))
    assert told(site.receive(GRANT)) == [(ResponseStatus.SUCCESS, None, None)]


async def test_an_error_that_was_lost_is_told_again_in_answer_to_a_grant() -> None:
    site = Site()
    site.receive(replace(DOWNLOAD, file_path="/simulated/none.bin"))
    assert told(site.receive(GRANT)) == [(ResponseStatus.ERROR, 1, ErrorCode.FILE_NOT_FOUND)]


@pytest.mark.parametrize("wait", [None, Wait("night", 600.0)])
async def test_a_repeated_download_is_answered_while_the_device_sends_or_waits(wait: Wait | None) -> None:
    site = Site()
    site.store.answers.clear()
    offer = site.receive(DOWNLOAD)
    site.receive(GRANT if wait is None else replace(GRANT, presigned_urls=None, wait=wait))
    assert await site.sent() == []
    assert site.receive(DOWNLOAD) == offer


async def test_a_grant_of_another_attempt_is_no_news_of_this_one() -> None:
    site = Site()
    site.receive(DOWNLOAD)
    assert site.receive(replace(GRANT, attempt=1)) == []
    assert site.counters.errors["a command of an older attempt"] == 1
    (gone,) = site.receive(replace(GRANT, attempt=3))
    assert (gone.status, gone.error, gone.sequence) == (ResponseStatus.ERROR, ErrorCode.UPLOAD_GONE, None)
    assert isinstance(gone.payload, UploadReport)
    assert (gone.payload.upload_id, gone.payload.attempt) == ("u", 3)


async def test_a_close_of_an_older_attempt_closes_nothing() -> None:
    site = Site()
    offer = site.receive(DOWNLOAD)
    site.receive(CloseUpload(upload_id="u", attempt=1))
    assert site.receive(DOWNLOAD) == offer
    assert site.counters.errors["a command of an older attempt"] == 1


async def test_a_second_close_leaves_the_outcome_as_it_is() -> None:
    site = Site()
    site.receive(DOWNLOAD)
    site.receive(CloseUpload(upload_id="u", attempt=2, outcome="cancelled"))
    site.receive(CloseUpload(upload_id="u", attempt=2, outcome="unknown"))
    assert told(site.receive(DOWNLOAD)) == [(ResponseStatus.CANCELLED, None, None)]
    assert site.counters.outcomes == {"cancelled": 1}


async def test_a_part_that_is_stored_after_the_close_is_not_reported() -> None:
    site = Site()
    site.store.answers.clear()
    site.receive(DOWNLOAD)
    site.receive(GRANT)
    await site.sent()
    site.receive(CloseUpload(upload_id="u", attempt=2, outcome="expired"))
    site.store.answers.set()
    assert await site.sent() == []


async def test_a_command_whose_plan_cannot_be_made_is_refused() -> None:
    """S3 has 10,000 parts at most, and the URLs of a pre-granted upload are for parts of exactly this size."""
    site = Site(10_001 * MIN_CHUNK_SIZE)
    config = UploadConfig(upload_id="u", chunk_size=MIN_CHUNK_SIZE, presigned_urls=GRANT.urls)
    (refused,) = site.receive(DownloadFile(upload_config=config))
    assert told([refused]) == [(ResponseStatus.ERROR, None, ErrorCode.BAD_REQUEST)]
    assert "10001 parts" in (refused.message or "")
