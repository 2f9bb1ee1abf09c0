"""A real agent process that is killed, stopped, or cut off from its broker: its state, and the parts it sends again."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.server import find_mosquitto, free_port
from schemas.messages import DownloadFile, Hello, UploadConfig
from schemas.parts import MIB
from schemas.values import LAST_SEQUENCE, Action
from tests.support.agent_process import (
    AgentProcess,
    Owner,
    agent,
    begin,
    bodies,
    client_id,
    close,
    grant,
    mosquitto,
    owner,
    part_of,
    report,
    sink,
    urls,
    wanted,
)
from tests.support.put_sink import PutSink, Script

__all__ = ["agent", "client_id", "mosquitto", "owner", "sink"]

CHUNK = 5 * MIB


def kept_while_others_stand_still(
    agent: AgentProcess, owner: Owner, sink: PutSink, *, stored: int, stalled: int
) -> list[int]:
    """The parts in the journal, once `stored` parts are stored and `stalled` others are half sent."""

    def whole() -> list[int]:
        return [part_of(put.target) for put in sink.puts if len(put.body) == CHUNK]

    owner.until(lambda: (len(whole()), len(sink.puts)) == (stored, stored + stalled))
    owner.until(lambda: set(agent.known()[1]["u1"].done) == set(whole()))
    return whole()


def test_after_a_kill_only_parts_in_flight_are_sent_again(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    content = os.urandom(10 * CHUNK)
    path = agent.file("big.bin", content)
    owner.online()
    begin(owner, path)
    offer = owner.answer("u1", 1)
    sink.expect(*[Script()] * 4, *[Script(read=MIB, then="stall")] * 4)
    grant(owner, sink, wanted(offer), 1)
    before = kept_while_others_stand_still(agent, owner, sink, stored=4, stalled=4)
    agent.kill()
    sink.released.set()
    agent.start()
    owner.online(epoch=2)
    request = owner.answer("u1", 2)
    assert not set(wanted(request)) & set(before)
    assert sorted(report(request).etags) == sorted(before)
    hello = [one.payload for one in owner.responses if one.action == "hello"][-1]
    assert isinstance(hello, Hello)
    assert [(one.upload_id, one.attempt) for one in hello.active] == [("u1", 1)]
    grant(owner, sink, wanted(request), 2)
    end = owner.answer("u1", 3)
    assert end.status == "success"
    whole = [part_of(put.target) for put in sink.puts if len(put.body) == CHUNK]
    assert sorted(whole) == list(range(1, 11)), "a finished part was sent twice"
    sent = sum(len(put.body) for put in sink.puts)
    assert sent <= len(content) + 4 * CHUNK
    assert b"".join(body for _, body in sorted(bodies(sink).items())) == content


def test_a_pre_granted_upload_survives_a_kill(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    content = os.urandom(3 * CHUNK)
    path = agent.file("big.bin", content)
    owner.online()
    sink.expect(Script(), *[Script(read=MIB, then="stall")] * 2)
    config = UploadConfig(upload_id="u1", chunk_size=CHUNK, presigned_urls=urls(sink, [1, 2, 3]), expires_in=900)
    owner.send(DownloadFile(upload_config=config, file_path=str(path)), Action.DOWNLOAD_FILE)
    whole = kept_while_others_stand_still(agent, owner, sink, stored=1, stalled=2)
    agent.kill()
    sink.released.set()
    agent.start()
    end = owner.answer("u1", 1)
    assert (end.status, sorted(report(end).etags)) == ("success", [1, 2, 3])
    sent = [part_of(put.target) for put in sink.puts if len(put.body) == CHUNK]
    assert (len(whole), sorted(sent)) == (1, [1, 2, 3])


def test_an_end_is_published_again_after_a_kill_until_it_is_closed(
    agent: AgentProcess, owner: Owner, sink: PutSink
) -> None:
    path = agent.file("a.bin", b"abc")
    owner.online()
    begin(owner, path)
    owner.answer("u1", 1)
    grant(owner, sink, [1], 1)
    end = owner.answer("u1", 2)
    agent.kill()
    owner.responses.clear()
    agent.start()
    again = owner.answer("u1", 2)
    assert (again.status, again.payload) == (end.status, end.payload)
    close(owner)
    owner.until(lambda: "u1" in agent.known()[0].tombstones)
    agent.kill()
    owner.responses.clear()
    agent.start()
    owner.online(epoch=2001)
    owner.until(lambda: owner.responses)
    assert owner.responses[0].payload == Hello(owner.presences[-1].install_id)
    begin(owner, path)
    owner.until(lambda: owner.answers("u1"))
    last = owner.answers("u1")[-1]
    assert (last.status, last.sequence, report(last).etags, len(sink.puts)) == ("success", None, {}, 1)


def test_stops_gracefully_and_resumes(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    path = agent.file("a.bin", os.urandom(2 * CHUNK))
    owner.online()
    begin(owner, path)
    owner.answer("u1", 1)
    sink.expect(Script(), Script(read=MIB, then="stall"))
    grant(owner, sink, [1, 2], 1)
    owner.until(sink.stalled.is_set)
    owner.listen(0.3)
    assert agent.terminate() == 0
    owner.until(lambda: owner.presences[-1].status == "offline")
    assert owner.presences[-1].sequence == LAST_SEQUENCE
    sink.released.set()
    agent.start()
    request = owner.answer("u1", 2)
    grant(owner, sink, wanted(request), 2)
    assert owner.answer("u1", 3).status == "success"


def test_a_broker_without_memory_loses_nothing(sink: PutSink, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    content = os.urandom(4 * CHUNK)
    with AgentProcess("amnesia", tmp_path, port, sink.host_port) as agent:
        path = agent.file("a.bin", content)
        with mosquitto_on(tmp_path / "mosquitto.conf"), Owner(port, "amnesia") as owner:
            owner.online()
            begin(owner, path)
            offer = owner.answer("u1", 1)
            grant(owner, sink, wanted(offer), 1)
        with mosquitto_on(tmp_path / "mosquitto.conf"), Owner(port, "amnesia") as owner:
            end = owner.answer("u1", 2)
            assert (end.status, sorted(report(end).etags)) == ("success", [1, 2, 3, 4])
            assert owner.presences[-1].status == "online"
            assert any(one.action == "hello" for one in owner.responses)
    assert len(sink.puts) == 4


@contextmanager
def mosquitto_on(configuration: Path) -> Iterator[None]:
    """A broker without persistence, on a fixed port."""
    executable = find_mosquitto()
    assert executable is not None
    with subprocess.Popen([executable, "-c", configuration], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(configuration)
            yield
        finally:
            process.kill()


def wait_for(configuration: Path) -> None:
    port = int(configuration.read_text().split()[1])
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
            return
        time.sleep(0.02)
