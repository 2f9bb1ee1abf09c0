"""`docker-compose.yml` as docs/how-to/docker.md and docs/containers.md describe it, with curl; then what may not be.

Rule: what is typed is the text of the documents, in its order, on an engine that has not built our images: `up` does.
Only free ports are put in place of the documented ones, and the id of the newest upload in place of `<upload_id>`.
An answer of curl's that is an error, which it would only print, ends the block.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.engine_fixtures import added, bases, forget_ours, images
from tests.support.engine_guide import guide, quick_start
from tests.support.engine_stack import (
    Operator,
    Ports,
    Stack,
    copy_checkout,
    digest,
    eventually,
    listeners,
    process,
    published,
)

__all__ = ["bases", "images"]
pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

OURS: Final = ("server", "client", "s3")
SERVICES: Final = ("address", "mosquitto", *OURS)
MIB: Final = 1 << 20
MOST_ADDED: Final = {"server": 130, "client": 40, "store": 50}
MOST_MEMORY: Final = {"server": 200, "client": 60, "s3": 100, "mosquitto": 20, "address": 4}
LOOPBACK_ADDRESS: Final = "0100007F"
_UPLOAD: Final = re.compile(r'"upload_id": ?"([0-9a-f]{32})"')


class Visitor:
    """Types one documented block after the other."""

    def __init__(self, stack: Stack, ports: Ports) -> None:
        self.stack, self._ports = stack, ports
        self.operator = Operator(stack, f"http://localhost:{ports.http}")
        self.newest = ""
        self.uploads: list[str] = []
        self.answers: dict[str, str] = {}
        (stack.directory / ".curlrc").write_text("fail\n")

    def types(self, block: str) -> str:
        """Run a block as bash would; uploads that it began are seen to their end and compared with the file."""
        text = self._ports.in_place(block.replace("<upload_id>", self.newest))
        strict = f"CURL_HOME={self.stack.directory}"
        answer = self.stack.run(["env", strict, "bash", "-euo", "pipefail", "-c", text])
        self.answers[text] = answer
        if "trigger-download" in block:
            self._finish(_UPLOAD.findall(answer)[-1])
        return answer

    def answer(self, part: str) -> str:
        """What was printed by the one block that has this in it."""
        (found,) = (answer for block, answer in self.answers.items() if part in block)
        return found

    def _finish(self, upload_id: str) -> None:
        ended = self.operator.wait(upload_id)
        assert (ended["status"], ended["progress"]) == ("completed", 100.0), ended
        source = self.stack.directory / "test-data" / Path(ended["file_path"]).name
        assert ended["bytes_uploaded"] == source.stat().st_size
        assert self.operator.stored(upload_id) == digest(source)
        self.newest = upload_id
        self.uploads.append(upload_id)


@pytest.fixture(scope="module")
def visitor(bases: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """A checkout in which the documents have been followed up to, and without, `down`."""
    forget_ours()
    ports = Ports()
    environment = {
        "BACKHAUL_HTTP_PORT": str(ports.http),
        "BACKHAUL_MQTT_PORT": str(ports.mqtt),
        "BACKHAUL_S3_PORT": str(ports.s3),
    }
    stack = Stack(copy_checkout(tmp_path_factory.mktemp("quick-start")), environment, ["docker-compose"])
    visitor = Visitor(stack, ports)
    try:
        for block in (*quick_start(), *guide()):
            if "docker-compose down" not in block:
                visitor.types(block)
        yield visitor
    finally:
        stack.down()


def test_the_guide_works_as_it_stands(visitor: Visitor) -> None:
    sizes = [visitor.operator.get(f"/uploads/{one}")["file_size"] for one in visitor.uploads]
    assert sizes == [10 * MIB, 10 * MIB, 5 * MIB, 25 * MIB, 100 * MIB]


def test_up_builds_missing_images(visitor: Visitor) -> None:
    built = re.findall(r"Image for service (\w+) was built", visitor.answer("docker-compose up -d"))
    assert sorted(built) == ["client", "enroll", "s3"]


def test_the_listing_has_the_newest_upload(visitor: Visitor) -> None:
    """It replaces the anonymous listing of the bucket. What was newest then is the second upload."""
    listed = visitor.answer("/uploads?client_id=restaurant-1")
    assert _UPLOAD.findall(listed) == [visitor.uploads[1], visitor.uploads[0]]


def test_the_checksums_are_equal(visitor: Visitor) -> None:
    sums = re.findall(r"(?<![0-9a-f])([0-9a-f]{32})  (\S+)$", visitor.answer("md5sum"), re.MULTILINE)
    assert [name for _, name in sums] == ["test-data/report.bin", "downloaded-file.bin"]
    assert sums[0][0] == sums[1][0]


def test_the_store_shows_what_it_holds(visitor: Visitor) -> None:
    held = visitor.answer("restart s3")
    assert "healthy" in held
    assert held.count("-test-file.bin\n") >= len(visitor.uploads) - 1


def test_everything_is_ready_after_the_restarts_of_the_guide(visitor: Visitor) -> None:
    """Of the store, of what holds the network, and of those whose network went with it."""
    ready = visitor.operator.curl("--fail", f"{visitor.operator.url}/health/ready")
    assert json.loads(ready)["status"] == "ready"


def test_the_answers_have_the_shapes_of_the_guide(visitor: Visitor) -> None:
    operator = visitor.operator
    upload = operator.get(f"/uploads/{visitor.newest}")
    assert upload["s3_key"].startswith("uploads/restaurant-1/")
    assert upload["s3_key"].endswith("-test-file.bin")
    assert (upload["completed_parts"], upload["total_parts"]) == (20, 20)
    eventually(lambda: operator.get("/status/restaurant-1"), lambda found: found["connected"] is True, 60.0)
    assert [one["client_id"] for one in operator.get("/clients")["clients"]] == ["restaurant-1", "restaurant-2"]
    assert operator.get("/health")["status"] == "ok"


def test_the_client_is_enrolled_and_obeys_signed_commands_alone(visitor: Visitor) -> None:
    """By `up`; and the restarts of the guide have not changed who it is."""
    operator = visitor.operator
    device = operator.get("/devices/restaurant-1")
    assert (device["state"], device["awaits_claim"], device["other_fingerprint"]) == ("active", False, None)
    client = operator.get("/clients/restaurant-1")
    assert (client["keys_version"], client["unverified"]) == (1, 0)


def test_another_device_is_enrolled_by_the_guide(visitor: Visitor) -> None:
    device = visitor.operator.get("/devices/restaurant-2")
    assert (device["state"], device["awaits_claim"]) == ("active", False)
    assert device["public_key"] != visitor.operator.get("/devices/restaurant-1")["public_key"]
    (upload,) = visitor.operator.get("/uploads?client_id=restaurant-2")["uploads"]
    assert (upload["status"], upload["file_path"]) == ("completed", "/data/report.bin")
    assert visitor.operator.stored(upload["upload_id"]) == digest(visitor.stack.directory / "test-data/report.bin")


def test_no_container_that_runs_has_the_key_of_the_root(visitor: Visitor) -> None:
    mounts = {service: visitor.stack.inspect(service)["Mounts"] for service in (*SERVICES, "devices")}
    holders = [
        name for name, found in mounts.items() if any(one["Destination"] == "/credentials/root" for one in found)
    ]
    assert holders == ["devices"]
    ended = visitor.stack.inspect("devices")["State"]
    assert (ended["Running"], ended["ExitCode"]) == (False, 0)


def test_a_file_elsewhere_on_the_client_is_rejected(visitor: Visitor) -> None:
    ended = visitor.operator.wait(visitor.operator.trigger(file_path="/etc/passwd"))
    assert (ended["state"], ended["error"]) == ("rejected", "path_not_allowed")


def test_the_bucket_is_not_listed_without_a_signature(visitor: Visitor) -> None:
    s3 = visitor.stack.environment["BACKHAUL_S3_PORT"]
    url = f"http://s3.localhost:{s3}/file-download-system-uploads?list-type=2"
    assert visitor.operator.curl("--output", "/dev/null", "--write-out", "%{http_code}", url) == "403"


def test_nothing_listens_beyond_loopback(visitor: Visitor) -> None:
    wanted = {int(visitor.stack.environment[f"BACKHAUL_{name}_PORT"]) for name in ("HTTP", "MQTT", "S3")}
    seen = set().union(*(published(visitor.stack.inspect(service)) for service in SERVICES))
    assert seen == {("127.0.0.1", port) for port in wanted}
    assert {port: listeners(port) for port in wanted} == {port: {LOOPBACK_ADDRESS} for port in wanted}


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_few_rights(visitor: Visitor, service: str) -> None:
    """One process, not root, no capabilities, none to be had, a root that cannot be written."""
    found = visitor.stack.inspect(service)
    assert _started_by(visitor.stack, service, found["State"]["Pid"]) == []
    facts = process(found)
    assert "0" not in facts["Uid"].split()
    assert (int(facts["CapEff"], 16), int(facts["CapBnd"], 16), facts["NoNewPrivs"]) == (0, 0, "1")
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    written = visitor.stack.run(["docker", "exec", visitor.stack.container(service), "touch", "/etc/x"], check=False)
    assert "Read-only file system" in written


def test_the_client_has_no_way_to_the_services_listener(visitor: Visitor) -> None:
    """Port 1884 is on a loopback that the client does not share."""
    look = "import socket; socket.create_connection(('mosquitto', 1884), timeout=3)"
    client = visitor.stack.container("client")
    assert "ConnectionRefused" in visitor.stack.run(["docker", "exec", client, "python3", "-c", look], check=False)


def test_the_client_cannot_read_the_passwords_of_others(visitor: Visitor) -> None:
    client = visitor.stack.container("client")
    found = visitor.stack.run(["docker", "exec", client, "sh", "-c", "ls /credentials /etc/mosquitto"], check=False)
    assert "client" in found
    assert "server" not in found
    assert "passwords" not in found


def test_images_and_memory_are_small(visitor: Visitor) -> None:
    sizes = {name: round(size / 1e6) for name, size in added().items()}
    assert {name: size for name, size in sizes.items() if size > MOST_ADDED[name]} == {}
    memory = {service: _memory(visitor.stack, service) for service in SERVICES}
    assert {service: used for service, used in memory.items() if used > MOST_MEMORY[service]} == {}


def test_down_stops_promptly_and_leaves_nothing(visitor: Visitor) -> None:
    """The documented ends: state and identities outlive `down`, and nothing outlives `down -v`."""
    pinned = visitor.operator.get("/devices/restaurant-1")["public_key"]
    keeps, takes_away = (block for block in quick_start() if "docker-compose down" in block)
    visitor.stack.compose("stop")
    # Docker kills what does not end within its time, with another code than 0.
    codes = {service: visitor.stack.inspect(service)["State"]["ExitCode"] for service in ("server", "client", "s3")}
    assert codes == dict.fromkeys(codes, 0)
    visitor.types(keeps)
    visitor.stack.compose("up", "-d")
    assert visitor.operator.get(f"/uploads/{visitor.newest}")["status"] == "completed"
    ended = visitor.operator.wait(visitor.operator.trigger(file_path="/data/report.bin"))
    assert ended["status"] == "completed", ended
    device = visitor.operator.get("/devices/restaurant-1")
    assert (device["public_key"], device["other_fingerprint"]) == (pinned, None)
    # Another client in `.env`.
    visitor.stack.environment["CLIENT_ID"] = "restaurant-3"
    visitor.stack.compose("up", "-d")
    ended = visitor.operator.wait(visitor.operator.trigger("restaurant-3", file_path="/data/report.bin"))
    assert ended["status"] == "completed", ended
    assert visitor.operator.get("/devices/restaurant-3")["state"] == "active"
    visitor.types(takes_away)
    assert visitor.stack.leftovers() == ""


def _started_by(stack: Stack, service: str, pid: int) -> list[str]:
    """What the first process of a container started; health checks are not of its making."""
    rows = stack.run(["docker", "top", stack.container(service), "-eo", "pid,ppid,args"]).splitlines()[1:]
    assert str(pid) in {row.split()[0] for row in rows}
    return [row for row in rows if row.split()[1] == str(pid)]


def _memory(stack: Stack, service: str) -> float:
    """MiB, as the engine counts it."""
    text = stack.run(["docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", stack.container(service)])
    number, unit = re.findall(r"^([\d.]+)(\w+)", text)[0]
    return float(number) * {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}[unit]
