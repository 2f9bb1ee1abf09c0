"""Messages that cannot be obeyed: answered where they can be, else told once and counted where an operator looks."""

import logging
from pathlib import Path

import msgspec
import pytest

from device_agent.commands import Commands
from device_agent.files.roots import Roots
from device_agent.logs import PAUSE
from device_agent.queries import Query, answer_query
from device_agent.state.journal import Journal
from device_agent.uploads import Uploads
from schemas.codec import MAX_MESSAGE_SIZE, decode_response, encode
from schemas.messages import Command, Health, Response
from schemas.values import SystemInfo

UNREADABLE = {
    "no JSON": b"{",
    "too large": b" " * (MAX_MESSAGE_SIZE + 1),
    "too deep": b"[" * 5_000,
    "no message_id": b'{"action":"health_check"}',
}


class Desk:
    """Commands over a real journal; what they say and ask is kept."""

    def __init__(self, folder: Path) -> None:
        journal, transfers = Journal.open(folder)
        self.said: list[Response] = []
        self.asked: list[tuple[Command, Query]] = []
        self.uploads = Uploads(journal, transfers.values(), workers=1, now=0.0)
        self.commands = Commands(
            self.uploads,
            journal,
            install_id="us",
            default_file=None,
            check_url=lambda _part: None,
            disk_full=lambda: False,
            publish=self.said.append,
            run_query=lambda command, question: self.asked.append((command, question)),
        )

    def health(self) -> Health:
        """What the agent says of itself."""
        self.commands.receive(msgspec.json.encode({"message_id": "h", "action": "health_check"}), 0.0)
        command, question = self.asked.pop()
        answer = answer_query(command, question, roots=Roots(), active_uploads=0, system_info=SystemInfo)
        payload = decode_response(encode(answer)).payload
        assert isinstance(payload, Health)
        return payload


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_message_is_told_in_one_line(desk: Desk, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    desk.commands.receive(data, 0.0)
    (line,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "unreadable_messages" in line.getMessage()
    assert "\n" not in line.getMessage()
    assert desk.said == []


def test_a_flood_is_told_once_a_minute_and_counted_in_full(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(100):
        desk.commands.receive(b"{", number / 100)
    desk.commands.receive(b"{", PAUSE + 1)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "101 so far" in said[1]


def test_a_bad_command_is_answered_and_told(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Beside the unreadable ones: either kind has its own line."""
    desk.commands.receive(b"{", 0.0)
    desk.commands.receive(b'{"message_id":"m","action":"format_disk"}', 0.0)
    assert [response.error for response in desk.said] == ["unsupported"]
    assert ["format_disk" in record.getMessage() for record in caplog.records] == [False, True]


def test_what_a_sender_wrote_cannot_flood_the_line(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    action = "x" * 100_000
    desk.commands.receive(msgspec.json.encode({"message_id": "m", "action": action}), 0.0)
    assert [len(record.getMessage()) < 500 for record in caplog.records] == [True]


def test_the_counters_are_in_the_answer_to_a_health_check(desk: Desk) -> None:
    assert desk.health().counters == {}
    for data in (*UNREADABLE.values(), b'{"message_id":"m","action":"format_disk"}'):
        desk.commands.receive(data, 0.0)
    assert desk.health().counters == {"unreadable_messages": 4, "bad_commands": 1}
