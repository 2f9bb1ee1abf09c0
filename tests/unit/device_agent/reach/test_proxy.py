"""A proxy's URL, the request CONNECT, and every answer that is no connection."""

import base64
import math
import time
from typing import Any, cast

import pytest

from device_agent.errors import ProxyFailed, SettingsError
from device_agent.reach.heads import MOST, NoHttp, read_head
from device_agent.reach.proxy import HttpProxy, shown
from tests.unit.device_agent.reach.link import ScriptedLink

OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"


def connect(answer: bytes, host: str = "broker.example", proxy: str = "http://proxy:3128") -> ScriptedLink:
    link = ScriptedLink([answer])
    HttpProxy.parse(proxy).connect(cast("Any", link), host, 443, math.inf)
    return link


def refusal(answer: bytes, proxy: str = "http://proxy:3128") -> str:
    with pytest.raises(ProxyFailed) as refused:
        connect(answer, proxy=proxy)
    return str(refused.value)


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("broker.example", "broker.example:443"),
        ("192.0.2.7", "192.0.2.7:443"),
        ("2001:db8::7", "[2001:db8::7]:443"),
        ("bücher.example", "xn--bcher-kva.example:443"),
    ],
)
def test_the_proxy_gets_the_name_of_the_target(host: str, target: str) -> None:
    assert connect(OPEN, host).sent.decode() == f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"


def test_credentials_are_decoded_from_the_url_and_sent_as_basic() -> None:
    sent = connect(OPEN, proxy="http://till-7:p%40ss%3A%0Aw%C3%B6rd@proxy").sent.decode()
    [line] = [one for one in sent.split("\r\n") if one.startswith("Proxy-Authorization: Basic ")]
    assert base64.b64decode(line.rpartition(" ")[2]).decode() == "till-7:p@ss:\nwörd"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "asks for a user and a password (407)"),
        (b"HTTP/1.1 403 Filtered\r\nContent-Length: 9\r\n\r\n<html>no", "forbids broker.example:443 (403)"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", "cannot reach broker.example:443 (502)"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "cannot reach broker.example:443 (503)"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n", "answered 302): is it a proxy?"),
        (b"HTTP/1.1 405 Method Not Allowed\r\n\r\n", "answered 405): is it a proxy?"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "answered 101): is it a proxy?"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "does not speak HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "does not speak HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/2 200\r\n\r\n", "does not speak HTTP"),
        (b"", "closed at once"),
        (b"HTTP/1.1 200 OK\r\n", "closed without a whole answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 10_000, "has no end"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, "has no end"),
        (b"HTTP/" + b"1" * 2 * MOST, "has no end"),
    ],
)
def test_every_other_answer_is_one_clear_reason(answer: bytes, reason: str) -> None:
    text = refusal(answer)
    assert text.startswith("the proxy proxy:3128 ")
    assert reason in text


def test_no_reason_has_the_credentials_or_bytes_of_the_proxy() -> None:
    proxy = "http://till-7:hunter2@proxy"
    for answer in (b"HTTP/1.1 407 hunter2\r\n\r\n", b"hunter2\r\n\r\n", b"HTTP/1.1 418 \x1b[31m\r\n\r\n"):
        text = refusal(answer, proxy)
        assert "hunter2" not in text
        assert "\x1b" not in text
    assert "does not accept its user and password (407)" in refusal(b"HTTP/1.1 407 No\r\n\r\n", proxy)
    assert "hunter2" not in repr(HttpProxy.parse(proxy))


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n"])
@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_nothing_behind_the_head_is_read(interim: bytes, newline: bytes) -> None:
    head = (interim + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n").replace(
        b"\r\n", newline
    )
    link = ScriptedLink([head + b"tunnel"])
    found = read_head(cast("Any", link), math.inf)
    assert (found.status, found.fields["content-length"]) == (200, "5")
    assert link.recv(100) == b"tunnel"


def test_an_answer_that_is_not_whole_in_time_is_given_up() -> None:
    with pytest.raises(TimeoutError):
        read_head(cast("Any", ScriptedLink([b"HTTP/1.1 200"])), time.monotonic() - 1)


def test_a_field_that_comes_twice_counts_once() -> None:
    found = read_head(cast("Any", ScriptedLink([b"HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\nno colon\r\n\r\n"])), math.inf)
    assert found.fields["a"] == "1"
    with pytest.raises(NoHttp):
        read_head(cast("Any", ScriptedLink([b"\r\n\r\n"])), math.inf)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy:3128",
        "https://proxy:3128",
        "socks5://proxy:1080",
        "http://",
        "http://proxy:0",
        "http://proxy:99999",
        "http://proxy:3128/secret",
        "http://proxy:3128?secret",
        "http://a..b:3128",
        "http://us%3Aer:secret@proxy",
    ],
)
def test_what_is_no_proxys_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="must be http://") as wrong:
        HttpProxy.parse(url)
    assert "secret" not in str(wrong.value)


@pytest.mark.parametrize(
    ("url", "visible"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://till-7@proxy", "http://till-7@proxy"),
        ("http://till-7:p@ss@proxy", "http://till-7:(set)@proxy"),
        ("http://:secret@[::1]:3128", "http://:(set)@[::1]:3128"),
        ("http://till-7@[::1]:3128", "http://till-7@[::1]:3128"),
        ("http://till-7@shop:secret@proxy:3128", "http://till-7@shop:(set)@proxy:3128"),
        (" http://till-7:secret@proxy", " http://till-7:(set)@proxy"),
        ("http://till-7:sec\nret@proxy", "http://till-7:(set)@proxy"),
    ],
)
def test_a_shown_url_has_no_password(url: str, visible: str) -> None:
    HttpProxy.parse(url)  # It is accepted.
    assert shown(url) == visible
