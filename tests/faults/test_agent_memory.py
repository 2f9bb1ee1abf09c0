"""The agent's memory is constant: a file of 6 GiB needs no more than one of 10 MiB.

Rule: the kernel's own high-water mark of the process. The file is sparse and the store is a sink that counts bytes:
what is left is the agent. Once with URLs that were granted beforehand for few large parts, and once as a control plane
does it: part by part of 5 MiB, each with its MD5, which costs the agent half a minute and the sink as much.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from broker.process import Broker
from schemas.messages import DownloadFile, GrantParts, ListFiles, UploadConfig
from schemas.parts import MIB, MIN_CHUNK_SIZE, to_ranges
from schemas.values import Action, UploadOptions
from tests.support.agent_process import AgentProcess, Owner, begin, close, mosquitto, report, urls
from tests.support.put_sink import PutSink

__all__ = ["mosquitto"]

GIB: Final = 1024 * MIB
SMALL: Final = 10 * MIB
LARGE: Final = 6 * GIB
CHUNK: Final = 64 * MIB
ALLOWED: Final = 4 * MIB
FLOOD_ALLOWED: Final = 18 * MIB
FLOOD_JOURNAL: Final = 10 * MIB

Upload = Callable[[AgentProcess, Owner, PutSink, str, int], None]


@pytest.fixture
def sink() -> Iterator[PutSink]:
    with PutSink(keep_bodies=False) as running:
        yield running


def high_water_mark(agent: AgentProcess) -> int:
    """Bytes of memory that the process held at most, so far."""
    assert agent.process is not None
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def sparse(agent: AgentProcess, name: str, size: int) -> Path:
    path = agent.data / name
    with path.open("wb") as file:
        file.truncate(size)
    # A file that was written this moment would be digested a second time before its success.
    while time.time() < path.stat().st_ctime + 0.1:
        time.sleep(0.01)
    return path


def send(agent: AgentProcess, owner: Owner, sink: PutSink, name: str, size: int) -> None:
    """Upload a sparse file to the sink."""
    path = sparse(agent, name, size)
    numbers = list(range(1, -(-size // CHUNK) + 1))
    config = UploadConfig(upload_id=name, chunk_size=CHUNK, presigned_urls=urls(sink, numbers, name), expires_in=3600)
    owner.send(DownloadFile(upload_config=config, file_path=str(path)), Action.DOWNLOAD_FILE)
    owner.until(lambda: any(one.status != "in_progress" for one in owner.answers(name)), timeout=500)
    end = owner.answers(name)[-1]
    assert (end.status, len(report(end).etags)) == ("success", len(numbers))
    path.unlink()


def negotiate(agent: AgentProcess, owner: Owner, sink: PutSink, name: str, size: int) -> None:
    """The same, part by part: every request is answered, and every etag acknowledged."""
    path = sparse(agent, name, size)
    begin(owner, path, name)
    etags, sequence = set[int](), 0
    while (response := owner.answer(name, sequence + 1, timeout=60)).status == "in_progress":
        etags |= set(report(response).etags)
        sequence = response.sequence or 0
        wanted = report(response).wanted_parts
        assert all(part.digest for part in wanted)
        granted = urls(sink, [part.part_number for part in wanted], name)
        bound = [replace(url, headers={"content-md5": part.digest}) for url, part in zip(granted, wanted, strict=True)]
        config = UploadConfig(upload_id=name, presigned_urls=tuple(bound), expires_in=900)
        completed = to_ranges(etags)
        payload = GrantParts(upload_config=config, acknowledges=sequence, completed_parts=completed)
        owner.send(payload, Action.GRANT_PARTS)
        # Earlier responses are not needed any more, and every wait searches through them.
        owner.responses.clear()
    assert (response.status, len(etags | set(report(response).etags))) == ("success", -(-size // MIN_CHUNK_SIZE))
    close(owner, name)
    path.unlink()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("upload", [send, negotiate], ids=["granted-beforehand", "negotiated"])
def test_six_gibibytes_take_no_more_memory_than_ten_mebibytes(
    mosquitto: Broker, sink: PutSink, tmp_path: Path, upload: Upload
) -> None:
    client_id = f"memory-{upload.__name__}"
    with (
        AgentProcess(client_id, tmp_path, mosquitto.address.port, sink.host_port) as agent,
        Owner(mosquitto.address.port, client_id) as owner,
    ):
        owner.online()
        upload(agent, owner, sink, "small", SMALL)
        before = high_water_mark(agent)
        upload(agent, owner, sink, "large", LARGE)
        after = high_water_mark(agent)
    assert sink.received == SMALL + LARGE
    assert after - before <= ALLOWED, f"{before} bytes became {after}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_flood_of_commands_takes_bounded_memory_and_a_bounded_journal(
    mosquitto: Broker, sink: PutSink, tmp_path: Path
) -> None:
    """The kind: the device counts entries, and another program chooses their size. No upload is ever closed."""
    client_id, batch = "memory-flood", 50
    with (
        AgentProcess(client_id, tmp_path, mosquitto.address.port, sink.host_port, {"LOG_LEVEL": "error"}) as agent,
        Owner(mosquitto.address.port, client_id) as owner,
    ):
        owner.online()
        before = high_water_mark(agent)
        options, metadata = UploadOptions(give_up_after=31_536_000), {"note": "x" * 4_000}
        for number in range(3_000):
            config = UploadConfig(upload_id=f"u{number}", owner="cli-test")
            path = str(agent.data / f"missing-{number}")
            payload = DownloadFile(upload_config=config, file_path=path, options=options, metadata=metadata)
            owner.send(payload, Action.DOWNLOAD_FILE)
            owner.send(ListFiles(pattern=f"{agent.data}/**"), Action.LIST_FILES)
            if number % batch == batch - 1:
                last = f"u{number}"
                owner.until(lambda last=last: owner.answers(last), timeout=60)  # type: ignore[misc]
                owner.responses.clear()
        after, journal = high_water_mark(agent), (tmp_path / "state" / "journal").stat().st_size
    assert after - before <= FLOOD_ALLOWED, f"{before} bytes became {after}"
    assert journal <= FLOOD_JOURNAL
