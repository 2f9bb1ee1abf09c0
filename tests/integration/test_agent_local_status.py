"""What a running agent says on its own device: its socket, and `LocalStatus` over it."""

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from broker.process import Broker
from device_agent.inbox import StatusAsked
from device_agent.local import reader, server
from device_agent.local.model import BrokerState, ClockState, JournalState, LocalStatus, Policy
from device_agent.local.reader import NoAnswer, NotAllowed, NotRunning, read_status
from device_agent.local.server import LocalServer
from device_agent.local.socket_path import NAME, local_folders
from tests.support.agent_process import AgentProcess, Owner, agent, begin, client_id, mosquitto, owner, sink
from tests.support.patience import came_true

__all__ = ["agent", "client_id", "mosquitto", "owner", "sink"]


def status(client_id: str = "d1") -> LocalStatus:
    return LocalStatus(
        version="1",
        client_id=client_id,
        pid=1,
        started_at=0.0,
        broker=BrokerState(url="mqtt://b", connected=True, since=0.0),
        clock=ClockState(now=0.0),
        journal=JournalState(folder="/s", size=0),
        policy=Policy(),
    )


def answers(asked: StatusAsked) -> None:
    asked.answer(status())


def test_the_socket_is_private_and_goes_with_the_agent(tmp_path: Path) -> None:
    with LocalServer([tmp_path], answers):
        found = (tmp_path / NAME).stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert read_status([tmp_path]) == status()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotRunning):
        read_status([tmp_path])


def test_a_path_longer_than_the_kernel_takes_works(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with LocalServer([folder], answers):
        assert read_status([folder]) == status()


def test_a_socket_that_a_killed_agent_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / NAME))
    with pytest.raises(NotRunning):
        read_status([tmp_path])
    with LocalServer([tmp_path], answers):
        assert read_status([tmp_path]) == status()


def test_the_folder_of_systemd_comes_first_and_the_state_folder_where_it_takes_none(tmp_path: Path) -> None:
    run, state = tmp_path / "run", tmp_path / "state"
    state.mkdir()
    folders = local_folders(state, {"RUNTIME_DIRECTORY": f"{run}:/other"})
    with LocalServer(folders, answers) as fallen_back:
        assert fallen_back.path == state / NAME
    run.mkdir()
    with LocalServer(folders, answers) as first:
        assert first.path == run / NAME


def test_no_folder_for_the_socket_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LocalServer([tmp_path / "none"], answers) as without:
        assert without.path is None
    assert len(caplog.records) == 1


def test_a_loop_that_hangs_gets_one_question_and_the_reader_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ANSWER_PATIENCE", 0.05)
    asked: list[StatusAsked] = []
    with LocalServer([tmp_path], asked.append):
        for _ in range(3):
            with pytest.raises(NoAnswer) as raised:
                read_status([tmp_path])
            assert raised.value.pid == os.getpid()
        assert len(asked) == 1
        asked[0].answer(status())
        monkeypatch.setattr(server, "ANSWER_PATIENCE", 30.0)

        def answer_the_second() -> None:
            if came_true(lambda: len(asked) == 2, 20.0):
                asked[1].answer(status("again"))

        threading.Thread(target=answer_the_second).start()
        assert read_status([tmp_path]).client_id == "again"


@pytest.mark.parametrize("size", [64 * 1024, 1])
def test_an_answer_without_an_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Root asks, and another user's process answers: neither root's memory nor its time is spent without a limit."""
    monkeypatch.setattr("device_agent.local.reader._PATIENCE", 0.5 if size == 1 else 30.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / NAME))
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                while True:
                    connection.sendall(b" " * size)

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(NoAnswer):
            read_status([tmp_path])
        answering.join(60)
    assert not answering.is_alive()


def test_the_socket_of_another_user_is_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Played, since root, as which tests may run, connects to every socket."""

    def refuse(path: Path, *_: object) -> LocalStatus:
        raise PermissionError(path)

    monkeypatch.setattr(reader, "_read", refuse)
    with pytest.raises(NotAllowed, match=NAME):
        read_status([tmp_path])


def test_many_connections_that_read_nothing_do_no_harm(agent: AgentProcess, owner: Owner) -> None:
    owner.online()
    state = agent.folder / "state"
    waited(state, lambda one: one.broker.connected)
    with ExitStack() as open_connections:
        for _ in range(200):
            connection = open_connections.enter_context(socket.socket(socket.AF_UNIX))
            connection.setblocking(False)  # noqa: FBT003 (only by position)
            with suppress(BlockingIOError):
                connection.connect(str(state / NAME))
        assert read_status([state]).client_id == agent.client_id
        begin(owner, agent.file("f", b"x"))
        owner.answer("u1", 1)
    assert agent.process is not None
    assert len(list(Path(f"/proc/{agent.process.pid}/task").iterdir())) < 20


def test_an_upload_that_waits_is_shown_with_its_reason(agent: AgentProcess, owner: Owner) -> None:
    owner.online()
    path = agent.file("f", b"content")
    begin(owner, path)
    owner.answer("u1", 1)
    shown = read_status([agent.folder / "state"])
    (upload,) = shown.uploads
    assert (upload.upload_id, upload.path, upload.size, upload.state) == ("u1", str(path), 7, "requesting")
    assert upload.reason == "waiting for the owner to grant the next parts"
    assert shown.policy.roots == (str(agent.data),)


def test_a_broker_that_is_away_is_shown_with_the_error_and_the_next_try(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with AgentProcess("away", tmp_path, taken.getsockname()[1]):
            shown = waited(tmp_path / "state", lambda one: one.broker.last_error is not None)
    assert not shown.broker.connected
    assert shown.broker.last_error == "ConnectionRefusedError: [Errno 111] Connection refused"
    assert shown.broker.next_try_at is not None
    assert shown.broker.last_contact_at is None


def test_a_second_agent_on_one_state_folder_leaves_the_socket_of_the_first(
    agent: AgentProcess, mosquitto: Broker, owner: Owner
) -> None:
    owner.online()
    second = AgentProcess("second", agent.folder, agent.port)
    second.start()
    assert second.process is not None
    assert second.process.wait(60) == 1
    assert read_status([agent.folder / "state"]).client_id == agent.client_id


def test_reading_the_status_writes_nothing(agent: AgentProcess, owner: Owner) -> None:
    owner.online()
    state = agent.folder / "state"
    waited(state, lambda one: one.broker.connected)
    before = sorted(written(state))
    for _ in range(20):
        read_status([state])
    assert sorted(written(state)) == before


def written(folder: Path) -> Iterator[tuple[str, int, int]]:
    for path in folder.rglob("*"):
        found = path.stat()
        yield str(path), found.st_mtime_ns, found.st_size


def waited(folder: Path, fact: Callable[[LocalStatus], bool]) -> LocalStatus:
    """The first status for which the fact holds."""
    found: list[LocalStatus] = []

    def look() -> bool:
        with suppress(NotRunning):
            found.append(read_status([folder]))
        return bool(found) and fact(found[-1])

    assert came_true(look, 30.0), found[-1:]
    return found[-1]
