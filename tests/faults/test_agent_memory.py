"""The agent's memory is flat: a file of 20 GiB takes no more of it than one of 10 MiB.

Rule: the kernel's own high-water mark of the process. The file is sparse, its URLs are granted beforehand and without a
digest, and the store is a sink that counts bytes: what is left is the agent.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broker.process import Broker
from schemas.messages import DownloadFile, UploadConfig
from schemas.parts import MIB
from schemas.values import Action
from tests.support.agent_process import AgentProcess, Owner, mosquitto, report, urls
from tests.support.put_sink import PutSink

__all__ = ["mosquitto"]

GIB: Final = 1024 * MIB
SMALL: Final = 10 * MIB
LARGE: Final = 20 * GIB
CHUNK: Final = 64 * MIB
ALLOWED: Final = 4 * MIB


@pytest.fixture
def sink() -> Iterator[PutSink]:
    with PutSink(keep_bodies=False) as running:
        yield running


def high_water_mark(agent: AgentProcess) -> int:
    """Bytes of memory that the process held at most, so far."""
    assert agent.process is not None
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def send(agent: AgentProcess, owner: Owner, sink: PutSink, name: str, size: int) -> None:
    """Upload a sparse file to the sink."""
    path = agent.data / name
    with path.open("wb") as file:
        file.truncate(size)
    numbers = list(range(1, -(-size // CHUNK) + 1))
    config = UploadConfig(upload_id=name, chunk_size=CHUNK, presigned_urls=urls(sink, numbers, name), expires_in=3600)
    owner.say(DownloadFile(upload_config=config, file_path=str(path)), Action.DOWNLOAD_FILE)
    owner.until(lambda: any(one.status != "in_progress" for one in owner.answers(name)), timeout=500)
    end = owner.answers(name)[-1]
    assert (end.status, len(report(end).etags)) == ("success", len(numbers))
    path.unlink()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_gibibytes_take_no_more_memory_than_ten_mebibytes(
    mosquitto: Broker, sink: PutSink, tmp_path: Path
) -> None:
    with (
        AgentProcess("memory", tmp_path, mosquitto.address.port, sink.host_port) as agent,
        Owner(mosquitto.address.port, "memory") as owner,
    ):
        owner.online()
        send(agent, owner, sink, "small", SMALL)
        before = high_water_mark(agent)
        send(agent, owner, sink, "large", LARGE)
        after = high_water_mark(agent)
    assert sink.received == SMALL + LARGE
    assert after - before <= ALLOWED, f"{before} bytes became {after}"
