"""`select_files` in the agent's loop: answers in time, the same selection for the same command, and failures."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from device_agent.agent import MAX_QUERIES
from device_agent.files.roots import Roots
from device_agent.inbox import CommandArrived, Connected
from device_agent.mqtt.connection import AckToken
from device_agent.queries.selections import MAX_WALKS, PATIENCE
from schemas.codec import decode_response
from schemas.messages import Presence, Response, Selection
from tests.unit.device_agent.agent_loop import AgentLoop, Works


class Device:
    """An agent over ten files; queries are answered at once, walks when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        if not self.data.exists():
            self.data.mkdir()
            for number in range(10):
                (self.data / f"{number}.csv").write_text("x" * number)
        self.pools: dict[str, Works] = {}
        self.loop = AgentLoop(folder / "state", roots=Roots((str(self.data),)), make_pool=self._make)
        self.loop.agent.turn([Connected()])
        self.loop.network.published.clear()

    def _make(self, name: str, count: int) -> Works:
        self.pools[name] = Works(name, count)
        return self.pools[name]

    def ask(self, message_id: str, **changes: Any) -> list[Response]:  # noqa: ANN401
        request = {"job_id": "job", "paths": [f"{self.data}/*.csv"], "pick": "path", "limit": 4, **changes}
        message = {"message_id": message_id, "action": "select_files", "payload": request}
        self.loop.agent.turn([CommandArrived(msgspec.json.encode(message), AckToken(1, 1))])
        return self.settle()

    def settle(self) -> list[Response]:
        """Answer queries, process events; the responses since the last call."""
        while True:
            self.pools["query"].run()
            arrived = self.loop.inbox.take(0.0)
            if not arrived:
                break
            self.loop.agent.turn(arrived)
        published, self.loop.network.published[:] = list(self.loop.network.published), []
        return [decode_response(data) for data in published]

    def walk(self) -> list[Response]:
        self.pools["select"].run()
        return self.settle()

    def walks_waiting(self) -> int:
        return len(self.pools["select"].calls)

    def pass_time(self, seconds: float) -> list[Response]:
        self.loop.now += seconds
        self.loop.agent.turn(())
        return self.settle()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    (tmp_path / "state").mkdir()
    return Device(tmp_path)


def page(responses: list[Response]) -> Selection:
    [response] = responses
    assert (response.action, response.status, response.error) == ("select_files", "success", None)
    assert isinstance(response.payload, Selection)
    return response.payload


def files(selection: Selection) -> list[str]:
    return [Path(entry.path).name for entry in selection.entries]


def test_a_short_walk_is_answered_by_the_first_page(device: Device) -> None:
    assert device.ask("m1") == []
    first = page(device.walk())
    assert (first.job_id, first.selection, first.complete, first.files, first.next) == ("job", "m1", True, 10, 4)
    assert files(first) == ["0.csv", "1.csv", "2.csv", "3.csv"]
    second = page(device.ask("m2", selection="m1", offset=4))
    last = page(device.ask("m3", selection="m1", offset=8))
    assert (files(second), files(last), last.next) == (["4.csv", "5.csv", "6.csv", "7.csv"], ["8.csv", "9.csv"], None)


def test_a_long_walk_is_answered_in_progress_and_read_later(device: Device) -> None:
    device.ask("m1")
    assert device.pass_time(PATIENCE - 0.1) == []
    waiting = page(device.pass_time(0.2))
    assert (waiting.selection, waiting.complete, waiting.entries) == ("m1", False, ())
    assert page(device.ask("m2", selection="m1")).complete is False
    assert device.walk() == []
    assert files(page(device.ask("m3", selection="m1"))) == ["0.csv", "1.csv", "2.csv", "3.csv"]
    assert device.walks_waiting() == 0


def test_the_loop_wakes_for_the_answer(device: Device) -> None:
    device.ask("m1")
    assert device.loop.agent.turn(()) <= PATIENCE


@pytest.mark.parametrize("moment", ["walking", "answered in progress", "kept"])
def test_the_same_command_again_makes_no_second_selection(device: Device, moment: str) -> None:
    device.ask("m1")
    if moment == "answered in progress":
        device.pass_time(PATIENCE + 1)
    elif moment == "kept":
        device.walk()
    again = device.ask("m1")
    assert device.walks_waiting() == (0 if moment == "kept" else 1)
    if moment == "walking":
        assert page(device.walk()).selection == "m1"
    else:
        assert page(again).complete is (moment == "kept")


def test_a_selection_outlives_a_restart_of_the_agent(device: Device, tmp_path: Path) -> None:
    device.ask("m1")
    device.walk()
    device.loop.journal.close()
    (tmp_path / "data" / "0.csv").unlink()
    restarted = Device(tmp_path)
    assert files(page(restarted.ask("m2", selection="m1"))) == ["0.csv", "1.csv", "2.csv", "3.csv"]


def test_a_selection_that_is_gone_is_made_again_and_read_from_its_beginning(device: Device) -> None:
    device.ask("m1")
    device.walk()
    (device.folder / "state" / "selections" / "m1.jsonl").unlink()
    assert device.ask("m2", selection="m1", offset=4) == []
    again = page(device.walk())
    assert (again.selection, again.offset, files(again)[0], again.next) == ("m2", 0, "0.csv", 4)
    repeated = page(device.ask("m2", selection="m1", offset=4))
    assert (repeated.selection, repeated.offset) == ("m2", 0)


def test_a_refused_request_is_answered_at_once(device: Device) -> None:
    device.ask("m1", paths=["/etc/*"])
    [refused] = device.walk()
    assert (refused.status, refused.error) == ("rejected", "path_not_allowed")
    assert str(device.data) in (refused.message or "")


def test_a_failure_that_nothing_waits_for_is_the_next_answer(device: Device) -> None:
    device.ask("m1", paths=["/etc/*"])
    assert page(device.pass_time(PATIENCE + 1)).complete is False
    assert device.walk() == []
    [refused] = device.ask("m2", selection="m1", paths=["/etc/*"])
    assert (refused.message_id, refused.error) == ("m2", "path_not_allowed")


def test_a_file_system_that_does_not_answer_is_named(device: Device) -> None:
    device.ask("m1")
    [(walk, unanswered)] = device.pools["select"].calls
    unanswered()
    [failed] = device.pass_time(0.0)
    assert failed.payload == Selection("job")
    assert (failed.error, (failed.message or "").split(":")[0]) == ("internal", "source_unresponsive")
    walk()
    assert device.settle() == [], "it answers at last: the selection is kept, and the command was answered"
    assert page(device.ask("m2", selection="m1")).complete


def test_a_disk_that_is_full_is_named(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("device_agent.state.selections.replace_file", full)
    device.ask("m1")
    [failed] = device.walk()
    assert failed.error == "no_space"


def test_a_flood_of_selections_is_answered_busy(device: Device) -> None:
    answers = [device.ask(f"m{number}") for number in range(MAX_WALKS + 2)]
    assert [one.error for one in (*answers[-2], *answers[-1])] == ["busy", "busy"]
    assert device.walks_waiting() == MAX_WALKS
    assert MAX_QUERIES >= 1


def test_a_stopping_agent_ends_its_walk(device: Device) -> None:
    device.ask("m1")
    device.loop.agent._selections.stop()
    [failed] = device.walk()
    assert (failed.error, failed.message) == ("internal", "the agent stops")


def test_the_agent_lists_the_capability(device: Device) -> None:
    presence = msgspec.json.decode(device.loop.agent._presence.online(), type=Presence)
    assert {"select_files", "folders", "wait", "rate"} <= set(presence.capabilities)
    assert presence.roots == (str(device.data),)
