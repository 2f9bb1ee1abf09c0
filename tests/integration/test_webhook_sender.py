"""The sender of webhooks against real servers: which addresses it reaches, and what it does with any answer."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from broker.server import free_port
from control_plane.adapters import webhooks as module
from control_plane.adapters.webhooks import MAX_HEAD, HttpWebhookSender
from tests.support.self_signed import self_signed

LOCAL: Final = ("127.0.0.0/8", "::1/128")
NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class Server:
    """Answers every connection with the same bytes; `requests` are what it received."""

    def __init__(self, answer: bytes, *, endless: bool = False) -> None:
        self.answer, self.endless = answer, endless
        self.requests: list[bytes] = []
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(length))
        writer.write(self.answer)
        try:
            while self.endless:
                writer.write(b"x" * 4096)
                await writer.drain()
            await writer.drain()
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    answer: bytes = NO_CONTENT, *, endless: bool = False, tls: Path | None = None
) -> AsyncIterator[Server]:
    one = Server(answer, endless=endless)
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
    async with await asyncio.start_server(one.handle, "127.0.0.1", 0, ssl=context) as server:
        one.port = server.sockets[0].getsockname()[1]
        yield one


async def test_a_message_arrives_as_it_was_given() -> None:
    async with serving() as server:
        url = f"http://127.0.0.1:{server.port}/hooks?a=b"
        answer = await HttpWebhookSender(LOCAL).post(url, {"webhook-id": "7"}, b'{"a":1}')
    assert (answer.status, answer.error, answer.accepted) == (204, None, True)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /hooks?a=b HTTP/1.1"
    assert {f"Host: 127.0.0.1:{server.port}", "webhook-id: 7", "Connection: close"} <= set(lines)
    assert body == b'{"a":1}'


async def test_a_receiver_is_reached_over_tls_if_its_certificate_is_trusted(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    async with serving(tls=certificate) as server:
        url = f"https://localhost:{server.port}/"
        trusting = HttpWebhookSender(LOCAL, ssl.create_default_context(cafile=certificate))
        assert (await trusting.post(url, {}, b"")).status == 204
        refused = await HttpWebhookSender(LOCAL).post(url, {}, b"")
        assert refused.status is None
        assert "certificate is not trusted" in str(refused.error)


@pytest.mark.parametrize(
    ("answer", "status", "error", "retry_after"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, None, None),
        (b"HTTP/1.1 202 Accepted\r\n\r\nuntil the end", 202, None, None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, None, None),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n", 503, "HTTP 503 Busy", 30.0),
        (b"HTTP/1.1 429 Slow\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n", 429, "HTTP 429 Slow", None),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            302,
            "HTTP 302 Found",
            None,
        ),
    ],
)
async def test_the_answer_is_the_status_and_no_redirect_is_followed(
    answer: bytes, status: int, error: str | None, retry_after: float | None
) -> None:
    async with serving(answer) as server:
        sender = HttpWebhookSender(LOCAL)
        found = await asyncio.create_task(sender.post(f"http://127.0.0.1:{server.port}/", {}, b"{}"))
    assert (found.status, found.error, found.retry_after) == (status, error, retry_after)
    assert len(server.requests) == 1


async def test_a_body_without_end_is_not_read() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n\r\n", endless=True) as server:
        answer = await HttpWebhookSender(LOCAL).post(f"http://127.0.0.1:{server.port}/", {}, b"{}")
    assert answer.status == 200


async def test_a_head_without_end_is_no_answer() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nX: " + b"y" * (MAX_HEAD * 2)) as server:
        answer = await HttpWebhookSender(LOCAL).post(f"http://127.0.0.1:{server.port}/", {}, b"{}")
    assert (answer.status, answer.accepted) == (None, False)


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b"", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"])
async def test_what_is_no_answer_in_http_is_an_error(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    async with serving(answer) as server:
        found = await HttpWebhookSender(LOCAL).post(f"http://127.0.0.1:{server.port}/", {}, b"{}")
    assert found.status is None
    assert found.error


async def test_a_receiver_that_does_not_answer_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    async with serving(b"") as server:
        answer = await HttpWebhookSender(LOCAL).post(f"http://127.0.0.1:{server.port}/", {}, b"{}")
    assert (answer.status, answer.error) == (None, "no answer within 0 s")


async def test_nothing_listens() -> None:
    # No port that the system gave and may give to another program at once.
    answer = await HttpWebhookSender(LOCAL).post(f"http://127.0.0.1:{free_port()}/", {}, b"{}")
    assert answer.status is None
    assert answer.error == "nothing listens there"


# --- addresses --------------------------------------------------------------------------------------------------------

NOT_PUBLIC: Final = [
    *(
        "127.0.0.1",
        "127.8.8.8",
        ".".join("0000"),
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
    ),
    *("192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[ff02::1]", "[2001:db8::1]"),
    *("192.0.0.8", "192.88.99.1", "[fec0::1]", "[3fff::1]"),
    *("[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::7f00:1]"),
]


@pytest.mark.parametrize("host", NOT_PUBLIC)
async def test_an_address_that_is_not_public_is_refused(host: str) -> None:
    sender = HttpWebhookSender()
    assert "WEBHOOK_NETWORKS" in str(sender.refusal(f"https://{host}/"))
    answer = await sender.post(f"https://{host}/", {}, b"{}")
    assert answer.status is None
    assert "no address of the public internet" in str(answer.error)


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "017700000001", "127.1", "localhost"])
async def test_another_spelling_of_loopback_is_refused(host: str) -> None:
    async with serving() as server:
        answer = await HttpWebhookSender().post(f"https://{host}:{server.port}/", {}, b"{}")
    assert (answer.status, server.requests) == (None, [])
    assert "no address of the public internet" in str(answer.error)


async def test_a_name_that_resolves_to_a_private_address_at_the_second_time_is_not_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: what is checked is what is connected to, and the name is resolved once for each request."""
    resolved: list[str] = []
    connected: list[str] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:  # noqa: ANN401
        resolved.append(host)
        address = "93.184.215.14" if len(resolved) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async def open_connection(host: str, _port: int, **_: Any) -> None:  # noqa: ANN401
        connected.append(host)
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    sender = HttpWebhookSender()
    assert sender.refusal("https://rebinding.example/") is None
    first = await sender.post("https://rebinding.example/", {}, b"{}")
    second = await sender.post("https://rebinding.example/", {}, b"{}")
    assert (first.error, connected) == ("nothing listens there", ["93.184.215.14"])
    assert "127.0.0.1 is no address of the public internet" in str(second.error)
    assert resolved == ["rebinding.example"] * 2


async def test_of_several_addresses_a_public_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server:

        def getaddrinfo(_host: str, _port: int, **_: Any) -> list[Any]:  # noqa: ANN401
            return [(0, 0, 0, "", (address, server.port)) for address in ("10.0.0.1", "127.0.0.1")]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        answer = await HttpWebhookSender(("127.0.0.1/32",)).post(f"http://a.example:{server.port}/", {}, b"{}")
    assert answer.status == 204


async def test_a_name_server_that_does_not_answer_holds_up_no_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:  # noqa: ANN401
        answered.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    sender = HttpWebhookSender()
    posts = [asyncio.create_task(sender.post("https://silent.example/", {}, b"{}")) for _ in range(32)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            assert await asyncio.to_thread(len, "done") == 4
    finally:
        answered.set()
    assert {(await post).error for post in posts} == {"its name has no address"}


async def test_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:  # noqa: ANN401
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    answer = await HttpWebhookSender().post("https://nowhere.example/", {}, b"{}")
    assert (answer.status, answer.error) == (None, "Name or service not known")


def test_plain_http_is_sent_only_to_allowed_networks() -> None:
    assert "plain HTTP" in str(HttpWebhookSender().refusal("http://hooks.example.com/"))
    assert "https:// is needed for 8.8.8.8" in str(HttpWebhookSender(LOCAL).refusal("http://8.8.8.8/"))
    assert HttpWebhookSender(LOCAL).refusal("http://127.0.0.1:8080/") is None
    assert HttpWebhookSender(("10.0.0.0/8",)).refusal("https://10.1.2.3/") is None


@pytest.mark.parametrize(
    "url",
    [
        *("", "hooks", "ftp://a/", "https:///x", "https://a:0/", "https://a:x/", "https://a b/", "https://a/\r\nX: y"),
        *("https://é.example/", "https://a..b/", "https://user:pass@a/", "https://a/#b", "https://a/" + "x" * 3_000),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    assert HttpWebhookSender(LOCAL).refusal(url)


@pytest.mark.parametrize("host", ["8.8.8.8", "93.184.215.14", "[2606:2800:21f::1]"])
def test_public_addresses_are_allowed(host: str) -> None:
    assert HttpWebhookSender().refusal(f"https://{host}/") is None
