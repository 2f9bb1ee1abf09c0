"""Faults of the network: host names that do not resolve, captive portals and proxies that answer requests.

Rule: no such answer comes from the object store or the broker, so the agent tries again and reports the reason.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import pytest

from broker.process import Broker
from device_agent.uploads import MAX_ADMITTED
from schemas.messages import CancelUpload, GrantParts, UploadConfig
from schemas.values import Action, PresignedPart
from tests.support.agent_process import AgentProcess, Owner, begin, grant, mosquitto
from tests.support.put_sink import PutSink, Script

__all__ = ["mosquitto"]

PAGE: Final = b"<html>Please log in</html>"
PORTAL: Final = {"Content-Type": "text/html"}
ANSWERS: Final = 4
PORTALS: Final[dict[str, Script]] = {
    "redirected": Script(status=302, headers={"Location": "http://127.0.0.1:1/login"}, etag=False),
    "welcomed": Script(status=200, headers=PORTAL, body=PAGE, etag=False),
    "forbidden": Script(status=403, headers=PORTAL, body=PAGE, etag=False),
    "not-found": Script(status=404, headers=PORTAL, body=PAGE, etag=False),
    "proxy-wants-a-password": Script(status=407, headers={"Proxy-Authenticate": "Basic"}, etag=False),
    "network-wants-a-password": Script(status=511, headers=PORTAL, body=PAGE, etag=False),
    "bad-gateway": Script(status=502, etag=False),
}
CONTENT: Final = os.urandom(1000)


@dataclass(frozen=True, slots=True)
class Passed:
    """One upload behind a portal: its distinct responses (sequence, status), and the body of every PUT."""

    responses: list[tuple[int, str]]
    bodies: list[bytes]


@pytest.fixture(scope="module")
def passed(mosquitto: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Passed]]:
    """One upload behind each portal. They run in parallel, since each waits for half a minute."""
    port, found = mosquitto.address.port, dict[str, Passed]()
    with ExitStack() as stack:
        sinks = {name: stack.enter_context(PutSink()) for name in PORTALS}
        owners = {}
        for number, names in enumerate(batched(PORTALS, MAX_ADMITTED)):
            client_id, hosts = f"portals-{number}", ",".join(sinks[name].host_port for name in names)
            folder = tmp_path_factory.mktemp(client_id)
            agent = stack.enter_context(AgentProcess(client_id, folder, port, hosts))
            owner = stack.enter_context(Owner(port, client_id))
            path = agent.file("a.bin", CONTENT)
            owner.online()
            for name in names:
                sinks[name].expect(*[PORTALS[name]] * ANSWERS)
                begin(owner, path, name)
                owner.answer(name, 1)
                grant(owner, sinks[name], [1], 1, name)
                owners[name] = owner
        for name, owner in owners.items():
            owner.answer(name, 2, timeout=60)
            responses = sorted({(one.sequence or 0, one.status) for one in owner.answers(name)})
            found[name] = Passed(responses, [put.body for put in sinks[name].puts])
        yield found


def batched(names: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    left = iter(names)
    while batch := tuple(islice(left, size)):
        yield batch


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("portal", PORTALS)
def test_an_answer_of_a_portal_costs_only_another_try(passed: dict[str, Passed], portal: str) -> None:
    assert passed[portal].bodies == [CONTENT] * (ANSWERS + 1)
    # The agent requests no new URL and does not fail: only the offer and the success are sent.
    assert passed[portal].responses == [(1, "in_progress"), (2, "success")]


def test_an_object_store_with_an_unknown_name_is_tried_again(mosquitto: Broker, tmp_path: Path) -> None:
    nowhere = "http://nowhere.invalid:9000"
    with (
        AgentProcess("nameless", tmp_path, mosquitto.address.port, nowhere) as agent,
        Owner(mosquitto.address.port, "nameless") as owner,
    ):
        path = agent.file("a.bin", b"abc")
        owner.online()
        begin(owner, path)
        owner.answer("u1", 1)
        lost = PresignedPart(1, f"{nowhere}/key?partNumber=1")
        config = UploadConfig(upload_id="u1", presigned_urls=(lost,), expires_in=900)
        owner.send(GrantParts(upload_config=config, acknowledges=1), Action.GRANT_PARTS)
        owner.until(lambda: any(one.current_upload and one.current_upload.reason for one in owner.statuses))
        reason = [one.current_upload.reason for one in owner.statuses if one.current_upload][-1]
        assert "nowhere.invalid" in (reason or "")
        owner.send(CancelUpload(upload_id="u1"), Action.CANCEL_UPLOAD)
        assert owner.answer("u1", 2).status == "cancelled"


def test_a_broker_with_an_unknown_name_is_tried_again_and_logged(tmp_path: Path) -> None:
    settings = {"MQTT_URL": "mqtt://nowhere.invalid:1883"}
    with AgentProcess("lost", tmp_path, 1, settings=settings) as agent:
        give_up_at = time.monotonic() + 60
        while agent.log.count("trying again in") < 2:
            assert agent.process is not None
            assert agent.process.poll() is None, "the agent ended"
            assert time.monotonic() < give_up_at, agent.log
            time.sleep(0.02)
        assert "nowhere.invalid" in agent.log
        assert "Traceback" not in agent.log
