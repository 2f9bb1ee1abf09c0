"""A real agent process with a source that changes during the upload."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from broker.process import Broker
from schemas.messages import DownloadFile, FileList, ListFiles, UploadConfig
from schemas.parts import MIB
from schemas.values import Action, DigestName, UploadOptions
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
    report,
    sink,
)
from tests.support.put_sink import PutSink

__all__ = ["agent", "client_id", "mosquitto", "owner", "sink"]

CHUNK = 5 * MIB


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def rewrite(path: Path) -> None:
    """Rewrite in place, and restore the time of modification."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    other.replace(path)


CHANGES: Final[dict[str, Callable[[Path], object]]] = {
    "append": append,
    "rewrite": rewrite,
    "replace": replace,
    "delete": Path.unlink,
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_changing_source_never_succeeds(agent: AgentProcess, owner: Owner, sink: PutSink, change: str) -> None:
    path = agent.file("a.bin", os.urandom(CHUNK))
    owner.online()
    begin(owner, path)
    owner.answer("u1", 1)
    CHANGES[change](path)
    grant(owner, sink, [1], 1)
    end = owner.answer("u1", 2)
    assert (end.status, end.error) == ("error", "source_gone" if change == "delete" else "source_changed")
    # Only digests show a rewriting in secret, after the part is stored.
    assert report(end).etags.keys() == ({1} if change == "rewrite" else set())


def test_under_prefix_a_growing_file_is_cut_where_it_began(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    content = os.urandom(CHUNK + 9)
    path = agent.file("log.txt", content)
    owner.online()
    config = UploadConfig(upload_id="u1", owner="cli-test")
    options = UploadOptions(on_change="prefix")
    owner.send(DownloadFile(upload_config=config, file_path=str(path), options=options), Action.DOWNLOAD_FILE)
    owner.answer("u1", 1)
    append(path)
    grant(owner, sink, [1, 2], 1)
    assert owner.answer("u1", 2).status == "success"
    assert b"".join(body for _, body in sorted(bodies(sink).items())) == content


def test_a_compressed_copy_counts_as_the_source(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    content = b"a line of a log\n" * 1_000_000
    path = agent.file("log.txt", content)
    owner.online()
    config = UploadConfig(upload_id="u1", owner="cli-test")
    options = UploadOptions(compression="gzip")
    owner.send(DownloadFile(upload_config=config, file_path=str(path), options=options), Action.DOWNLOAD_FILE)
    offer = report(owner.answer("u1", 1))
    copies = agent.folder / "state" / "spool"
    assert offer.file_size == (copies / "u1.1.gz").stat().st_size
    agent.kill()
    agent.start()
    owner.answer("u1", 2)
    grant(owner, sink, [1], 2)
    assert owner.answer("u1", 3).status == "success"
    assert gzip.decompress(sink.puts[0].body) == content
    close(owner)
    owner.until(lambda: list(copies.iterdir()) == [])


@pytest.mark.parametrize("digest", [DigestName.MD5, DigestName.NONE])
def test_a_file_below_proc_is_sent_whole(agent: AgentProcess, owner: Owner, sink: PutSink, digest: DigestName) -> None:
    """A size is a claim: this file says that it has 0 bytes."""
    path = Path("/proc/cpuinfo")
    agent.kill()
    agent.settings = {"ALLOWED_ROOTS": "/proc"}
    agent.start()
    owner.online()
    config = UploadConfig(upload_id="u1", owner="cli-test", digest=digest)
    owner.send(DownloadFile(upload_config=config, file_path=str(path)), Action.DOWNLOAD_FILE)
    offer = report(owner.answer("u1", 1))
    grant(owner, sink, [1], 1)
    assert owner.answer("u1", 2).status == "success"
    [put] = sink.puts
    assert offer.file_size == len(put.body) == len(path.read_bytes()) > 0
    owner.until(lambda: list((agent.folder / "state" / "spool").iterdir()) == [])


def test_a_default_file_whose_name_is_not_utf8_is_announced_listed_and_sent(
    mosquitto: Broker, owner: Owner, sink: PutSink, tmp_path: Path, client_id: str
) -> None:
    """Such an agent ran, and never connected."""
    path = tmp_path / "data" / os.fsdecode(b"caf\xe9.bin")
    agent = AgentProcess(client_id, tmp_path, mosquitto.address.port, sink.host_port, {"FILE_PATH": str(path)})
    path.parent.mkdir()
    path.write_bytes(b"content")
    spelling = rf"{agent.data}/caf\xe9.bin"
    with agent:
        assert owner.online().default_file == spelling
        asked = owner.send(ListFiles(f"{agent.data}/*"), Action.LIST_FILES)
        owner.until(lambda: any(response.message_id == asked for response in owner.responses))
        [listed] = [response.payload for response in owner.responses if response.message_id == asked]
        assert isinstance(listed, FileList)
        assert [entry.path for entry in listed.files] == [spelling]
        owner.send(DownloadFile(upload_config=UploadConfig(upload_id="u1", owner="cli-test")), Action.DOWNLOAD_FILE)
        assert report(owner.answer("u1", 1)).file_path == spelling
        grant(owner, sink, [1], 1)
        assert owner.answer("u1", 2).status == "success"
        assert bodies(sink) == {1: b"content"}
