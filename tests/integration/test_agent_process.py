"""A real agent process, a real broker, an HTTP sink: its messages, its PUTs, and its recovery."""

import base64
import hashlib
import json
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from schemas.messages import (
    CancelUpload,
    FileList,
    GrantParts,
    Health,
    HealthCheck,
    Hello,
    ListFiles,
    SelectFiles,
    Selection,
)
from schemas.parts import MIB
from schemas.values import Action, Pick
from tests.support.agent_process import (
    AgentProcess,
    Owner,
    agent,
    begin,
    bodies,
    client_id,
    grant,
    mosquitto,
    owner,
    report,
    sink,
    urls,
    wanted,
)
from tests.support.put_sink import PutSink, Script

__all__ = ["agent", "client_id", "mosquitto", "owner", "sink"]

CHUNK = 5 * MIB


def test_publishes_online_and_hello(agent: AgentProcess, owner: Owner) -> None:
    birth = owner.online()
    assert (birth.epoch, birth.sequence, birth.client_id) == (1, 0, agent.client_id)
    assert (birth.agent.protocol, "download_file" in birth.capabilities) == ((1,), True)
    owner.until(lambda: owner.responses)
    hello = owner.responses[0]
    assert (hello.action, hello.epoch, hello.payload) == ("hello", 1, Hello(birth.install_id))


def test_negotiates_an_upload_of_many_parts(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    content = os.urandom(4 * CHUNK + 17)
    path = agent.file("a b ü.bin", content)
    owner.online()
    begin(owner, path)
    offer = owner.answer("u1", 1)
    first = report(offer)
    assert (offer.status, first.file_size, first.owner, wanted(offer)) == (
        "in_progress",
        len(content),
        "cli-test",
        [1, 2, 3, 4, 5],
    )
    digests = {part.part_number: part.digest for part in first.wanted_parts}
    assert digests[1] == base64.b64encode(hashlib.md5(content[:CHUNK], usedforsecurity=False).digest()).decode()
    grant(owner, sink, [1, 2, 3], 1)
    request = owner.answer("u1", 2)
    assert (request.status, wanted(request)) == ("in_progress", [4, 5])
    grant(owner, sink, [4, 5], 2)
    end = owner.answer("u1", 3)
    assert end.status == "success"
    assert {*report(request).etags, *report(end).etags} == {1, 2, 3, 4, 5}
    assert b"".join(body for _, body in sorted(bodies(sink).items())) == content
    assert len(sink.puts) == 5
    assert {put.headers["content-type"] for put in sink.puts} == {"application/octet-stream"}


def test_a_pre_granted_upload_in_the_original_shape(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    content = os.urandom(CHUNK + 1)
    path = agent.file("granted.bin", content)
    owner.online()
    urls_ = [{"part_number": one.part_number, "url": one.url} for one in urls(sink, [1, 2])]
    config = {"upload_id": "granted-1", "bucket": "b", "key": "k", "chunk_size": CHUNK, "presigned_urls": urls_}
    payload = {"file_path": str(path), "upload_config": config}
    owner.publish(json.dumps({"message_id": "m", "action": "download_file", "payload": payload}).encode())
    end = owner.answer("granted-1", 1)
    assert (end.status, report(end).owner, sorted(report(end).etags)) == ("success", "cli-unknown", [1, 2])
    assert b"".join(body for _, body in sorted(bodies(sink).items())) == content


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1])
def test_sizes_at_the_edges(agent: AgentProcess, owner: Owner, sink: PutSink, size: int) -> None:
    content = os.urandom(size)
    path = agent.file("edge.bin", content)
    owner.online()
    begin(owner, path)
    offer = owner.answer("u1", 1)
    grant(owner, sink, wanted(offer), 1)
    assert owner.answer("u1", 2).status == "success"
    assert b"".join(body for _, body in sorted(bodies(sink).items())) == content


def test_a_bare_command_belongs_to_the_control_plane(agent: AgentProcess, owner: Owner) -> None:
    path = agent.file("bare.bin", b"x")
    owner.online()
    message = {"message_id": "typed.by-hand_1", "action": "download_file", "payload": {"file_path": str(path)}}
    owner.publish(json.dumps(message).encode())
    first = report(owner.answer("typed.by-hand_1", 1))
    assert (first.owner, first.attempt, first.chunk_size, first.digest) == ("control-plane", 1, CHUNK, "md5")


def test_a_repeated_command_is_executed_once(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    path = agent.file("a.bin", b"abc")
    owner.online()
    for _ in range(3):
        begin(owner, path)
    owner.answer("u1", 1)
    for _ in range(3):
        grant(owner, sink, [1], 1)
    owner.answer("u1", 2)
    begin(owner, path)
    owner.listen(0.5)
    assert len(sink.puts) == 1
    assert {one.sequence for one in owner.answers("u1")} == {1, 2}


def test_cancel_stops_the_part_in_flight(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    path = agent.file("a.bin", os.urandom(CHUNK))
    owner.online()
    begin(owner, path)
    owner.answer("u1", 1)
    sink.expect(Script(read=MIB, then="stall"))
    grant(owner, sink, [1], 1)
    owner.until(sink.stalled.is_set)
    owner.send(CancelUpload(upload_id="u1"), Action.CANCEL_UPLOAD)
    end = owner.answer("u1", 2)
    assert (end.status, end.error) == ("cancelled", None)
    cancel = owner.send(CancelUpload(upload_id="never-heard-of"), Action.CANCEL_UPLOAD)
    owner.until(lambda: owner.answers("never-heard-of"))
    unknown = owner.answers("never-heard-of")[0]
    assert (unknown.status, unknown.message_id, unknown.sequence) == ("cancelled", cancel, None)


def test_forbidden_commands_are_refused(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    path = agent.file("a.bin", b"abc")
    owner.online()
    begin(owner, Path("/etc/passwd"), "outside")
    assert (owner.answer("outside", 1).status, owner.answer("outside", 1).error) == ("rejected", "path_not_allowed")
    begin(owner, agent.data / "missing", "missing")
    assert owner.answer("missing", 1).error == "file_not_found"
    begin(owner, path, "host")
    owner.answer("host", 1)
    with PutSink() as foreign:
        grant(owner, foreign, [1], 1, "host")
        end = owner.answer("host", 2)
        assert (end.status, end.error, foreign.puts) == ("rejected", "host_not_allowed", [])
    owner.send(GrantParts(upload_id="nobody", presigned_urls=urls(sink, [1])), Action.GRANT_PARTS)
    owner.until(lambda: owner.answers("nobody"))
    assert owner.answers("nobody")[0].error == "upload_gone"


def test_a_bad_message_is_answered_or_counted_and_never_delivered_again(agent: AgentProcess, owner: Owner) -> None:
    owner.online()
    for data in (b"\xff\xfe", b"{", b"[" * 5000, b"{}", b"null", b'{"message_id":7}'):
        owner.publish(data)
    owner.publish(b'{"message_id":"odd","action":"reboot"}')
    owner.publish(
        b'{"message_id":"bad","action":"download_file","payload":{"upload_config":{"upload_id":"u9",'
        b'"attempt":2,"chunk_size":1}}}'
    )
    owner.publish(b'{"message_id":"nopath","action":"download_file"}')
    owner.until(lambda: len(owner.responses) >= 4)
    odd, bad, nopath = owner.responses[1:4]
    assert (odd.message_id, odd.status, odd.error) == ("odd", "rejected", "unsupported")
    assert (bad.message_id, bad.error, report(bad).upload_id, report(bad).attempt) == ("bad", "bad_request", "u9", 2)
    assert (nopath.message_id, nopath.error, report(nopath).upload_id) == ("nopath", "bad_request", "nopath")
    agent.kill()
    agent.start()
    owner.online(epoch=2)
    owner.listen(0.5)
    assert all(one.action == "hello" for one in owner.responses[4:])


def test_answers_about_its_files_and_its_health(agent: AgentProcess, owner: Owner) -> None:
    agent.file("one.bin", b"1")
    owner.online()
    files = owner.send(ListFiles(pattern=f"{agent.data}/*"), Action.LIST_FILES)
    health = owner.send(HealthCheck(), Action.HEALTH_CHECK)
    owner.until(lambda: {files, health} <= {one.message_id for one in owner.responses})
    found = {one.message_id: one.payload for one in owner.responses}
    listed, healthy = found[files], found[health]
    assert isinstance(listed, FileList)
    assert isinstance(healthy, Health)
    assert [entry.path for entry in listed.files] == [str(agent.data / "one.bin")]
    assert healthy.system_info.hostname


def test_a_selection_outlives_the_process_that_made_it(agent: AgentProcess, owner: Owner) -> None:
    for number in range(3):
        agent.file(f"{number}.bin", bytes(number))
    owner.online()
    request = SelectFiles("job", (f"{agent.data}/*.bin",), pick=Pick.LARGEST, limit=2)
    made = owner.send(request, Action.SELECT_FILES)
    owner.until(lambda: made in {one.message_id for one in owner.responses})
    agent.kill()
    (agent.data / "0.bin").unlink()
    agent.start()
    owner.online(epoch=2)
    read = owner.send(replace(request, selection=made, offset=2), Action.SELECT_FILES)
    owner.until(lambda: read in {one.message_id for one in owner.responses})
    found = {one.message_id: one.payload for one in owner.responses}
    first, last = found[made], found[read]
    assert isinstance(first, Selection)
    assert isinstance(last, Selection)
    assert (first.complete, first.files, first.bytes, first.next, last.next) == (True, 3, 3, 2, None)
    assert [Path(entry.path).name for entry in (*first.entries, *last.entries)] == ["2.bin", "1.bin", "0.bin"]


def test_publishes_its_progress_while_it_sends(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    path = agent.file("a.bin", os.urandom(CHUNK))
    owner.online()
    begin(owner, path)
    owner.answer("u1", 1)
    sink.expect(Script(read=MIB, then="stall"))
    grant(owner, sink, [1], 1)
    owner.until(lambda: owner.statuses)
    current = owner.statuses[0].current_upload
    assert current is not None
    assert (owner.statuses[0].status, current.upload_id, current.total_parts) == ("uploading", "u1", 1)
    assert owner.statuses[0].system_info is not None
    owner.send(CancelUpload(upload_id="u1"), Action.CANCEL_UPLOAD)
    owner.until(lambda: owner.statuses[-1].status == "idle")


def test_no_url_with_its_signature_reaches_the_log(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    path = agent.file("a.bin", b"abc")
    owner.online()
    begin(owner, path)
    owner.answer("u1", 1)
    sink.expect(Script(status=500), Script(then="reset"))
    grant(owner, sink, [1], 1)
    owner.answer("u1", 2)
    assert "CANARY" not in agent.log
    assert b"CANARY" not in (agent.folder / "state" / "journal").read_bytes()


def test_a_second_agent_on_the_same_state_folder_exits(agent: AgentProcess, owner: Owner) -> None:
    owner.online()
    twin = AgentProcess("twin", agent.folder, agent.port)
    twin.start()
    assert twin.process is not None
    assert twin.process.wait(60) == 1
    assert "another agent uses the state folder" in agent.log
