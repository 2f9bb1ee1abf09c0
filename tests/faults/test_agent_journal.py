"""The agent's promises about its journal, kept while the process is killed at every fsync and while the disk is full.

Rule: real processes. `strace` kills at the N-th call; a small tmpfs is the disk that fills up.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.process import Broker
from schemas.messages import CloseUpload, DownloadFile, GrantParts, UploadConfig
from schemas.parts import MIB
from schemas.values import Action
from tests.support.agent_process import AgentProcess, Owner, part_of, report, urls, wanted
from tests.support.brokers import mosquitto
from tests.support.crash_points import Point, Tracer
from tests.support.put_sink import PutSink

__all__ = ["mosquitto"]

CHUNK = 5 * MIB
PARTS = 3
FULL = "cannot be written: No space left on device"
LEAST = 4
"""How often at least an upload of parts that are sent one by one makes the journal durable: the offer together with its
command, and each part, the last together with the end."""


@pytest.fixture
def sink() -> Iterator[PutSink]:
    with PutSink() as running:
        yield running


def begin(owner: Owner, path: Path, acknowledges: int = 0, upload_id: str = "u1") -> None:
    config = UploadConfig(upload_id=upload_id, attempt=1, owner="cli-test")
    payload = DownloadFile(upload_config=config, file_path=str(path), acknowledges=acknowledges)
    owner.send(payload, Action.DOWNLOAD_FILE, f"begin-{upload_id}")


class LevelTriggered:
    """An owner that reads the latest response, and sends the command for it, until the upload is closed."""

    def __init__(self, owner: Owner, sink: PutSink) -> None:
        self.owner = owner
        self.sink = sink
        self.etags: dict[int, str] = {}
        self.acknowledged = 0
        self.over: str | None = None
        self._read = 0

    def turn(self) -> None:
        self.owner.listen(0.05)
        for response in self.owner.answers("u1")[self._read :]:
            self._read += 1
            reported = report(response).etags
            assert not set(reported) & set(self.etags) or (response.sequence or 0) > self.acknowledged - 1
            self.etags.update(reported)
            self.acknowledged = max(self.acknowledged, response.sequence or 0)
            if response.status == "in_progress":
                self._grant(wanted(response))
            else:
                self.over = f"{response.status} {response.error}"

    def _grant(self, numbers: list[int]) -> None:
        needed = [number for number in numbers if number not in self.etags]
        config = UploadConfig(upload_id="u1", presigned_urls=urls(self.sink, needed), expires_in=900)
        self.owner.send(GrantParts(upload_config=config, acknowledges=self.acknowledged), Action.GRANT_PARTS)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_after_a_kill_at_any_fsync_no_finished_part_is_sent_again(
    mosquitto: Broker, sink: PutSink, tmp_path: Path, strace: str
) -> None:
    calls = 0
    while survived_a_kill(mosquitto, sink, tmp_path / f"crash-{calls + 1}", strace, calls + 1):
        calls += 1
        sink.puts.clear()
    assert calls >= LEAST


def survived_a_kill(mosquitto: Broker, sink: PutSink, home: Path, strace: str, call: int) -> bool:
    """Whether an agent was killed at this fsync. In any case the upload succeeds."""
    content = os.urandom(PARTS * CHUNK)
    one_by_one = {"MAX_PARALLEL_PARTS": "1"}
    agent = AgentProcess(home.name, home, mosquitto.address.port, sink.host_port, one_by_one)
    agent.data.mkdir(parents=True)
    path = agent.file("a.bin", content)
    tracer = Tracer(strace, home / "strace.log", Point("fdatasync", (home / "state" / "journal",), call))
    with Owner(mosquitto.address.port, home.name) as owner:
        played = LevelTriggered(owner, sink)
        agent.start(*tracer.command)
        died, seen = False, 0
        for turn in range(400):
            if owner.presences and owner.presences[-1].status == "online" and len(owner.presences) > seen:
                seen = len(owner.presences)
                begin(owner, path, played.acknowledged)
            played.turn()
            if agent.process is not None and agent.process.poll() is not None:
                died = True
                agent.start()
            if played.over:
                break
            assert turn < 399, agent.log[-3000:]
        agent.kill()
    assert tracer.struck or not died, f"call {call}: it ended, and not by that call\n{tracer.log}"
    assert played.over == "success None"
    assert sorted(played.etags) == [1, 2, 3]
    whole = [part_of(put.target) for put in sink.puts if len(put.body) == CHUNK]
    assert sorted(set(whole)) == [1, 2, 3]
    assert len(whole) <= PARTS + 1, "more than the part in flight was sent again"
    assert b"".join({part_of(put.target): put.body for put in sink.puts if put.body}[n] for n in (1, 2, 3)) == content
    return tracer.struck


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=False).returncode
    ):
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_on_a_full_disk_new_uploads_are_refused_and_known_ones_continue(
    mosquitto: Broker, sink: PutSink, tmp_path: Path, small_disk: Path
) -> None:
    settings = {"STATE_DIR": str(small_disk / "state")}
    content = os.urandom(CHUNK + 1)
    with (
        AgentProcess("full-disk", tmp_path, mosquitto.address.port, sink.host_port, settings) as agent,
        Owner(mosquitto.address.port, "full-disk") as owner,
    ):
        path = agent.file("a.bin", content)
        owner.online()
        begin(owner, path)
        offer = owner.answer("u1", 1)
        ballast = small_disk / "ballast"
        fill(ballast)
        refused = until_refused(owner, agent.data / "missing")
        config = UploadConfig(upload_id="u1", presigned_urls=urls(sink, wanted(offer)), expires_in=900)
        owner.send(GrantParts(upload_config=config, acknowledges=1), Action.GRANT_PARTS)
        owner.until(lambda: any(s.current_upload and s.current_upload.reason for s in owner.statuses))
        assert owner.statuses[-1].current_upload is not None
        assert (owner.statuses[-1].current_upload.reason or "").endswith(FULL)
        agent.kill()
        agent.start()
        owner.online(epoch=1001)
        ballast.unlink()
        # The grant was never acknowledged to the broker, so it is delivered again; the agent may request earlier.
        owner.until(lambda: owner.answers("u1")[-1].status == "success")
        end = owner.answers("u1")[-1]
        assert sorted(report(end).etags) == [1, 2]
        owner.send(CloseUpload(upload_id="u1", attempt=1, outcome="completed"), Action.CLOSE_UPLOAD)
        begin(owner, path, upload_id=refused)
        assert owner.answer(refused, 1).status == "in_progress"


def until_refused(owner: Owner, path: Path) -> str:
    """Begin uploads until the last block of the journal is full too; the first refused upload."""
    for number in range(100):
        upload_id, reported = f"v{number}", len(owner.statuses)
        begin(owner, path, upload_id=upload_id)
        # An upload whose first record fits and whose end does not has no response: it is reported as waiting.
        owner.until(lambda name=upload_id, reported=reported: owner.answers(name) or reports_full_disk(owner, reported))  # type: ignore[misc]
        if any(answer.error == "no_space" for answer in owner.answers(upload_id)):
            return upload_id
    pytest.fail("the disk never fills up")


def reports_full_disk(owner: Owner, reported: int) -> bool:
    """Whether a status after the first `reported` ones has the full disk as its reason."""
    shown = [one.current_upload.reason or "" for one in owner.statuses[reported:] if one.current_upload]
    return any(reason.endswith(FULL) for reason in shown)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"x" * 512)
        except OSError:
            return
