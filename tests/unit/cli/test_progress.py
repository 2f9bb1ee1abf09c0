"""Following uploads to their end, without a control plane: the documents come from a script."""

from typing import Any

import pytest

from control_plane.cli.errors import Refused, Unavailable, Unreachable
from control_plane.cli.output import CliOutput
from control_plane.cli.rest.progress import Bars, Lines, failures, follow, line, waiting_reason
from tests.unit.cli.test_tables import drawn

Document = dict[str, Any]


def upload(status: str, **facts: object) -> Document:
    return {
        "upload_id": "u1",
        "client_id": "restaurant-1",
        "file_path": "/data/a.bin",
        "status": status,
        "state": status,
        "progress": 0.0,
        "bytes_uploaded": 0,
        "file_size": 100,
        **facts,
    }


class Recorder:
    """A display that records what it is given."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.notes: list[str | None] = []

    def show(self, upload: Document) -> None:
        self.shown.append(upload["status"])

    def note(self, text: str | None) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("control_plane.cli.rest.progress.time.sleep", sleep)
    monkeypatch.setattr("control_plane.cli.rest.progress.time.monotonic", lambda: now[0])


def test_it_reads_until_every_upload_has_ended() -> None:
    script = iter([upload("queued"), upload("in_progress"), upload("completed")])
    display = Recorder()
    ended = follow(lambda _: next(script), ["u1"], display)
    assert display.shown == ["queued", "in_progress", "completed"]
    assert failures(ended) == []


def test_an_upload_that_ended_is_not_read_again() -> None:
    scripts = {"u1": iter([upload("failed")]), "u2": iter([upload("queued"), upload("completed")])}
    ended = follow(lambda one: next(scripts[one]), ["u1", "u2"], Recorder())
    assert [one["status"] for one in ended] == ["failed", "completed"]
    assert len(failures(ended)) == 1


def test_a_control_plane_that_comes_back_in_time_is_retried() -> None:
    away = iter([True, True, False])

    def read(_: str) -> Document:
        if next(away):
            text = "away"
            raise Unreachable(text)
        return upload("completed")

    display = Recorder()
    assert follow(read, ["u1"], display)[0]["status"] == "completed"
    assert display.notes == ["trying again: away", "trying again: away", None]


def test_an_unavailable_control_plane_is_retried_after_the_time_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """It, or the proxy before it, answers 503 with Retry-After; the upload continues meanwhile."""
    slept: list[float] = []
    monkeypatch.setattr("control_plane.cli.rest.progress.time.sleep", slept.append)
    away = iter([7.0, None, 3_600.0])

    def read(_: str) -> Document:
        for retry_after in away:
            text = "the database cannot be used now"
            raise Unavailable(text, {"status": 503}, retry_after=retry_after)
        return upload("completed")

    assert follow(read, ["u1"], Recorder())[0]["status"] == "completed"
    assert slept == [7.0, 1.0, 10.0]


def test_a_permanent_refusal_ends_the_command_at_once() -> None:
    def read(_: str) -> Document:
        text = "no such upload"
        raise Refused(text, {"status": 404})

    with pytest.raises(Refused):
        follow(read, ["u1"], Recorder())


def test_a_control_plane_that_stays_unreachable_ends_the_command() -> None:
    def read(_: str) -> Document:
        text = "away"
        raise Unreachable(text)

    with pytest.raises(Unreachable):
        follow(read, ["u1"], Recorder())


def test_a_line_is_printed_once_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(CliOutput())
    for progress in (0.0, 10.0, 24.0, 26.0, 51.0):
        lines.show(upload("in_progress", progress=progress, bytes_uploaded=int(progress)))
    lines.note("trying again")
    lines.note("trying again")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "restaurant-1 a.bin  in_progress  0 B of 100 B",
        "restaurant-1 a.bin  in_progress  26 B of 100 B",
        "restaurant-1 a.bin  in_progress  51 B of 100 B",
        "trying again",
    ]


def test_a_bar_shows_a_reason_while_there_is_one() -> None:
    bars = Bars()
    bars.show(upload("queued", reason={"text": "the client is offline", "next_wake_at": "2999-01-01T10:00:00Z"}))
    assert "the client is offline, next try 10:00:00Z" in drawn(bars.renderable(), 100)
    bars.show(upload("completed", proof="etag", progress=100.0))
    text = drawn(bars.renderable(), 100)
    assert "offline" not in text
    assert "100%" in text
    assert "proven by etag" in text


def test_the_bar_of_an_empty_file_is_full_when_it_is_done() -> None:
    bars = Bars()
    bars.show(upload("completed", file_size=0))
    assert "100%" in drawn(bars.renderable(), 100)


def test_an_upload_that_makes_progress_has_no_reason() -> None:
    assert (
        waiting_reason(upload("in_progress", reason={"code": "uploading", "text": "the client is uploading"})) is None
    )
    assert (
        waiting_reason(upload("in_progress", reason={"code": "client_reported", "text": "rate limit"})) == "rate limit"
    )


def test_the_code_of_a_reason_decides_and_not_its_sentence() -> None:
    assert waiting_reason(upload("queued", reason={"code": "dispatching", "text": "reworded"})) is None
    assert (
        waiting_reason(upload("queued", reason={"code": "of_later", "text": "of a later version"}))
        == "of a later version"
    )


def test_a_failed_upload_shows_its_error() -> None:
    text = line(upload("failed", error="file_not_found", message="no such file"))
    assert text == "restaurant-1 a.bin  failed  0 B of 100 B  file_not_found: no such file"
