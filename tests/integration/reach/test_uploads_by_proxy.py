"""Parts that are sent through a proxy: what it gets, and whose answer an answer is."""

import base64
from collections.abc import Iterator

import pytest

from device_agent.reach.proxy import HttpProxy
from device_agent.reach.upload_link import UploadWay
from device_agent.storage.uploader import Uploader
from device_agent.storage.url_policy import UploadHosts
from schemas.parts import Part
from tests.support.put_sink import PutSink, Script
from tests.support.senders import AGAIN, IDLE, WHOLE, Sender, sink, source

__all__ = ["sink", "source"]

STORE = "http://store.invalid/bucket/key?partNumber=1&X-Amz-Signature=CANARY"


@pytest.fixture
def sender(sink: PutSink, source: object) -> Iterator[Sender]:
    """A sender whose proxy is the sink; no server has the name of the store."""
    way = UploadWay(HttpProxy.parse(f"http://till-7:hunter2@{sink.host_port}"))
    uploader = Uploader(UploadHosts.parse(["http://store.invalid", "https://store.invalid"]), way, idle_timeout=IDLE)
    yield Sender(sink, source, uploader)  # type: ignore[arg-type]
    uploader.close()


def test_a_proxy_of_plain_http_gets_the_whole_url_and_the_credentials(sender: Sender, sink: PutSink) -> None:
    assert sender.put(Part(1, 0, 10), STORE)
    [put] = sink.puts
    assert (put.target, put.headers["host"]) == (
        "http://store.invalid/bucket/key?partNumber=1&X-Amz-Signature=CANARY",
        "store.invalid",
    )
    assert put.headers["proxy-authorization"] == f"Basic {base64.b64encode(b'till-7:hunter2').decode()}"


@pytest.mark.parametrize("status", [403, 407, 500, 502, 503])
def test_the_proxys_own_answer_is_tried_again_and_named(sender: Sender, sink: PutSink, status: int) -> None:
    sink.expect(Script(status=status, body=b"<html><title>Error</title></html>"))
    failed = sender.failing(WHOLE, STORE)
    assert failed.kind is AGAIN
    assert failed.text.startswith(f"the proxy {sink.host_port}")
    assert str(status) in failed.text
    assert "CANARY" not in failed.text
    assert "hunter2" not in failed.text


def test_an_answer_of_the_object_store_behind_it_keeps_its_meaning(sender: Sender, sink: PutSink) -> None:
    sink.expect(Script(status=404, body=b"<Error><Code>NoSuchUpload</Code></Error>"))
    assert sender.failing(WHOLE, STORE).text == "the object store answered 404 NoSuchUpload"


def test_a_server_that_opens_no_connections_is_named_with_the_target(sender: Sender, sink: PutSink) -> None:
    sink.expect(Script(status=405))
    failed = sender.failing(WHOLE, STORE.replace("http://", "https://"))
    assert failed.kind is AGAIN
    assert "cannot connect to store.invalid:443: ProxyFailed: the proxy" in failed.text
    assert "CANARY" not in failed.text


def test_a_host_that_is_not_allowed_is_refused_before_any_proxy(sender: Sender, sink: PutSink) -> None:
    failed = sender.failing(WHOLE, "http://elsewhere.invalid/x")
    assert (failed.kind.value, sink.received) == ("host_not_allowed", 0)
