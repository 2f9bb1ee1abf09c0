"""Messages that cannot be carried out: answered if possible, else logged at a limited rate and counted."""

import logging
from pathlib import Path

import msgspec
import pytest

from device_agent.after.policy import AfterPolicy
from device_agent.commands import Commands
from device_agent.files.roots import Roots
from device_agent.logs import PAUSE
from device_agent.queries.answers import HealthQuery, Query, answer_query
from device_agent.state.installation import Installation
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


class CommandReceiver:
    """Commands over a real journal, with lists of their responses and queries."""

    def __init__(self, folder: Path) -> None:
        journal, transfers = Journal.open(folder)
        self.responses: list[Response] = []
        self.queries: list[tuple[Command, Query]] = []
        self.uploads = Uploads(journal, transfers.values(), workers=1, now=0.0)
        self.commands = Commands(
            self.uploads,
            journal,
            installation=Installation.open(folder),
            default_file=None,
            check_url=lambda _part: None,
            disk_failure=lambda: None,
            publish=self.responses.append,
            run_query=self.run,
            patterns_of=lambda _type: (),
            after_refusal=AfterPolicy().refusal,
            after_acknowledged=lambda _upload_id, _close: None,
        )

    def run(self, command: Command, query: Query, _scope: str) -> bool:
        self.queries.append((command, query))
        return True

    def health(self) -> Health:
        """The agent's answer to a health check."""
        self.commands.receive(msgspec.json.encode({"message_id": "h", "action": "health_check"}), 0.0)
        command, query = self.queries.pop()
        assert isinstance(query, HealthQuery)
        answer = answer_query(command, query, roots=Roots(), active_uploads=0, system_info=SystemInfo)
        payload = decode_response(encode(answer)).payload
        assert isinstance(payload, Health)
        return payload


@pytest.fixture
def receiver(tmp_path: Path) -> CommandReceiver:
    return CommandReceiver(tmp_path)


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_message_is_logged_in_one_line(
    receiver: CommandReceiver, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    receiver.commands.receive(data, 0.0)
    (line,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "unreadable_messages" in line.getMessage()
    assert "\n" not in line.getMessage()
    assert receiver.responses == []


def test_a_flood_is_logged_once_a_minute_and_counted_in_full(
    receiver: CommandReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(100):
        receiver.commands.receive(b"{", number / 100)
    receiver.commands.receive(b"{", PAUSE + 1)
    responses = [record.getMessage() for record in caplog.records]
    assert len(responses) == 2
    assert "101 so far" in responses[1]


def test_a_bad_command_is_answered_and_logged(receiver: CommandReceiver, caplog: pytest.LogCaptureFixture) -> None:
    """Each kind of bad message has its own log line."""
    receiver.commands.receive(b"{", 0.0)
    receiver.commands.receive(b'{"message_id":"m","action":"format_disk"}', 0.0)
    assert [response.error for response in receiver.responses] == ["unsupported"]
    assert ["format_disk" in record.getMessage() for record in caplog.records] == [False, True]


def test_text_of_a_sender_is_shortened_in_the_log(receiver: CommandReceiver, caplog: pytest.LogCaptureFixture) -> None:
    action = "x" * 100_000
    receiver.commands.receive(msgspec.json.encode({"message_id": "m", "action": action}), 0.0)
    assert [len(record.getMessage()) < 500 for record in caplog.records] == [True]


def test_the_counters_are_in_the_answer_to_a_health_check(receiver: CommandReceiver) -> None:
    assert receiver.health().counters == {}
    for data in (*UNREADABLE.values(), b'{"message_id":"m","action":"format_disk"}'):
        receiver.commands.receive(data, 0.0)
    assert receiver.health().counters == {"unreadable_messages": 4, "bad_commands": 1}


def test_a_retained_command_is_dropped_and_counted(receiver: CommandReceiver, caplog: pytest.LogCaptureFixture) -> None:
    """A stored command may be of any age, and would be obeyed at each connect."""
    receiver.commands.drop_retained(0.0)
    assert receiver.health().counters == {"retained_commands": 1}
    assert "without the retain flag" in caplog.text
