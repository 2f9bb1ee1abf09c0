"""What lies between a device and its neighbours: names that nobody knows, portals and proxies that answer instead.

Rule: none of it is an answer of the store or of the broker, so it is waited out, and said.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.process import Broker
from schemas.messages import CancelUpload, GrantParts, UploadConfig
from schemas.values import Action, PresignedPart
from tests.support.agent_process import AgentProcess, Owner, begin, grant, mosquitto
from tests.support.put_sink import PutSink, Script

__all__ = ["mosquitto"]

PORTAL = {"Content-Type": "text/html"}


@pytest.fixture
def sink() -> Iterator[PutSink]:
    with PutSink() as running:
        yield running


@pytest.mark.parametrize(
    "script",
    [
        Script(status=302, headers={"Location": "http://127.0.0.1:1/login"}, etag=False),
        Script(status=200, headers=PORTAL, body=b"<html>Please log in</html>", etag=False),
        Script(status=407, headers={"Proxy-Authenticate": "Basic"}, etag=False),
        Script(status=511, headers=PORTAL, body=b"<html>Please log in</html>", etag=False),
        Script(status=502, etag=False),
    ],
    ids=["redirected", "welcomed", "proxy-wants-a-password", "network-wants-a-password", "bad-gateway"],
)
def test_a_portal_that_answers_for_the_store_costs_another_try(
    mosquitto: Broker, sink: PutSink, tmp_path: Path, script: Script
) -> None:
    client_id = f"portal-{script.status}"
    with (
        AgentProcess(client_id, tmp_path, mosquitto.address.port, sink.host_port) as agent,
        Owner(mosquitto.address.port, client_id) as owner,
    ):
        path = agent.file("a.bin", content := os.urandom(1000))
        sink.expect(script)
        owner.online()
        begin(owner, path)
        owner.answer("u1", 1)
        grant(owner, sink, [1], 1)
        # A refusal costs the URL too: keys rotate.
        owner.until(lambda: len(owner.answers("u1")) > 1)
        if owner.answers("u1")[-1].status == "in_progress":
            grant(owner, sink, [1], 2)
        owner.until(lambda: owner.answers("u1")[-1].status == "success")
        assert [put.body for put in sink.puts] == [content, content]


def test_a_store_whose_name_nobody_knows_is_tried_again(mosquitto: Broker, tmp_path: Path) -> None:
    nowhere = "nowhere.invalid:9000"
    with (
        AgentProcess("nameless", tmp_path, mosquitto.address.port, nowhere) as agent,
        Owner(mosquitto.address.port, "nameless") as owner,
    ):
        path = agent.file("a.bin", b"abc")
        owner.online()
        begin(owner, path)
        owner.answer("u1", 1)
        lost = PresignedPart(1, f"http://{nowhere}/key?partNumber=1")
        config = UploadConfig(upload_id="u1", presigned_urls=(lost,), expires_in=900)
        owner.say(GrantParts(upload_config=config, acknowledges=1), Action.GRANT_PARTS)
        owner.until(lambda: any(one.current_upload and one.current_upload.reason for one in owner.statuses))
        reason = [one.current_upload.reason for one in owner.statuses if one.current_upload][-1]
        assert "nowhere.invalid" in (reason or "")
        owner.say(CancelUpload(upload_id="u1"), Action.CANCEL_UPLOAD)
        assert owner.answer("u1", 2).status == "cancelled"


def test_a_broker_whose_name_nobody_knows_is_tried_again_and_said(tmp_path: Path) -> None:
    settings = {"MQTT_URL": "mqtt://nowhere.invalid:1883"}
    with AgentProcess("lost", tmp_path, 1, settings=settings) as agent:
        give_up_at = time.monotonic() + 30
        while agent.log.count("trying again in") < 2:
            assert agent.process is not None
            assert agent.process.poll() is None, "it gave up"
            assert time.monotonic() < give_up_at, agent.log
            time.sleep(0.02)
        assert "nowhere.invalid" in agent.log
        assert "Traceback" not in agent.log
