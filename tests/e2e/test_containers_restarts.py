"""Each container of `docker-compose.yml` stopped and started again in the middle of a 100 MiB upload.

Rule: the upload completes in its first attempt, the object equals the file, and what went over the wire is the file
and, once, the parts that were in flight. The kernel counts it, at the store's network interface, or at the client's
where it is the store that stops. Today's docker compose builds and drives the stack; 1.29 does with the guide's.
"""

import re
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.engine_fixtures import bases, forget_ours, images
from tests.support.engine_stack import Operator, Ports, Stack, copy_checkout, eventually, random_file
from tests.support.engine_tools import Tools, tools

__all__ = ["bases", "images", "tools"]
pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

MIB: Final = 1 << 20
SIZE: Final = 100 * MIB
RATE: Final = 5 * MIB
"""Bytes per second: slow enough for a middle to exist."""

IN_FLIGHT: Final = 4 * 5 * MIB
OVERHEAD: Final = 1.03
"""Headers of TCP, IP and HTTP, and the few other requests."""

AWAY: Final = 2.0
AGAIN: Final = ("--retry", "60", "--retry-delay", "1", "--retry-all-errors")


@pytest.fixture(scope="module")
def stack(bases: None, tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    forget_ours()
    ports = Ports()
    environment = {
        "BACKHAUL_HTTP_PORT": str(ports.http),
        "BACKHAUL_MQTT_PORT": str(ports.mqtt),
        "BACKHAUL_S3_PORT": str(ports.s3),
        "MAX_BYTES_PER_SECOND": str(RATE),
    }
    stack = Stack(copy_checkout(tmp_path_factory.mktemp("restarts")), environment, [str(tools.compose)])
    try:
        stack.compose("up", "--detach")
        yield stack
    finally:
        stack.down()


@pytest.mark.parametrize("service", ["client", "server", "mosquitto", "s3", "address"])
def test_an_upload_survives_a_restart_in_its_middle(stack: Stack, service: str) -> None:
    operator = Operator(stack, f"http://localhost:{stack.environment['BACKHAUL_HTTP_PORT']}")
    wanted = random_file(stack.directory / "test-data/test-file.bin", SIZE)
    before = crossed(stack, service)
    upload_id = operator.trigger()
    eventually(lambda: operator.get(f"/uploads/{upload_id}"), lambda found: 25 <= found["progress"] <= 75, 60.0)

    stack.compose("stop", service)
    if service not in {"server", "address"}:
        assert operator.get(f"/uploads/{upload_id}")["progress"] < 100
    time.sleep(AWAY)
    stack.compose("start", service)
    if service == "address":
        # What it held is gone with it; docs/containers.md describes what to do.
        stack.compose("restart", "mosquitto", "server")
    operator.curl(*AGAIN, f"{operator.url}/health")

    ended = operator.wait(upload_id)
    assert (ended["status"], ended["attempt"]) == ("completed", 1), ended
    assert SIZE <= crossed(stack, service) - before <= OVERHEAD * (SIZE + IN_FLIGHT)
    assert operator.stored(upload_id) == wanted


def crossed(stack: Stack, stopped: str) -> int:
    """Bytes so far from the client to the store, by the one of the two counters that continues (proc(5), net/dev)."""
    service, column = ("client", 8) if stopped == "s3" else ("s3", 0)
    table = stack.run(["docker", "exec", stack.container(service), "cat", "/proc/net/dev"])
    counts = re.findall(r"^ *eth0:(.*)$", table, re.MULTILINE)[0].split()
    return int(counts[column])
