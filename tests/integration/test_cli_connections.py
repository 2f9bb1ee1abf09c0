"""Each failure of a connection has its own sentence, so that a person knows which of the two ends to mend."""

import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from broker.server import free_port
from control_plane.cli.errors import CliError, Failed, Misused, Unavailable, Unreachable
from control_plane.cli.rest import client
from control_plane.cli.rest.client import ControlPlane, failure_text, read_object
from tests.support.self_signed import self_signed


class Answer(BaseHTTPRequestHandler):
    """Answers as a control plane at /health/ready, as a proxy without one at /uploads, else as one that wants HTTPS."""

    def do_GET(self) -> None:
        ready, away = self.path == "/health/ready", self.path.startswith("/uploads")
        body = b'{"status": "ready"}' if ready else b"Client sent an HTTP request to an HTTPS server."
        if away:
            body = b'<html>no backend: see <a href="https://proxy.example/503">here</a></html>'
        self.send_response(200 if ready else 503 if away else 400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Quiet(ThreadingHTTPServer):
    """Prints no failed handshake."""

    def handle_error(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    yield from serving(None)


@pytest.fixture(scope="module")
def tls_port(certificate: Path) -> Iterator[int]:
    yield from serving(certificate)


@pytest.fixture
def elsewhere(certificate: Path) -> Iterator[int]:
    """The port at 127.0.0.2, for which the certificate is not."""
    yield from serving(certificate, "127.0.0.2")


def serving(certificate: Path | None, address: str = "127.0.0.1") -> Iterator[int]:
    server = Quiet((address, 0), Answer)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAUSE", 0.0)


def refusal(server: str) -> CliError:
    with pytest.raises(CliError) as caught, ControlPlane(server, "a-secret-token") as plane:
        plane.readiness()
    assert "a-secret-token" not in str(caught.value)
    return caught.value


def test_an_unknown_authority_is_named_as_one(tls_port: int) -> None:
    error = refusal(f"https://127.0.0.1:{tls_port}")
    assert isinstance(error, Unreachable)
    assert "authority that is not trusted here: SSL_CERT_FILE" in str(error)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_authorities_of_ssl_cert_file_are_trusted_for_this_machine_too(
    host: str, tls_port: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with ControlPlane(f"https://{host}:{tls_port}") as plane:
        assert plane.readiness() == {"status": "ready"}


def test_a_certificate_of_another_name_is_named_as_one(
    elsewhere: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert "its certificate is for another name" in str(refusal(f"https://127.0.0.2:{elsewhere}"))


def test_an_authority_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (tmp_path / "none.pem", tmp_path / "bad.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(name))
        error = refusal("https://127.0.0.1:1")
        assert isinstance(error, Misused)
        assert f"SSL_CERT_FILE={name}: " in str(error)
        (tmp_path / "bad.pem").write_text("no certificate")


def test_https_to_a_port_of_http_is_named_as_that(port: int) -> None:
    assert "it does not speak TLS" in str(refusal(f"https://127.0.0.1:{port}"))


def test_http_to_a_port_of_https_is_named_as_that(tls_port: int, port: int) -> None:
    """Some servers end the connection, others answer 400 with a sentence."""
    assert "ends the connection without an answer: is it https://?" in str(refusal(f"http://127.0.0.1:{tls_port}"))
    with pytest.raises(Failed, match="is it https://"), ControlPlane(f"http://127.0.0.1:{port}") as plane:
        plane.clients()


def test_a_page_of_a_proxy_that_has_a_link_is_no_wish_for_https(port: int) -> None:
    """`--wait` goes on after a 503, whatever page a proxy shows with it."""
    with pytest.raises(Unavailable), ControlPlane(f"http://127.0.0.1:{port}") as plane:
        plane.upload("u1", None)


def test_an_unknown_name_is_named_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "its name cannot be resolved (Name or service not known)" in str(refusal("http://no.such.example"))


def test_a_refused_connection_and_a_silent_server_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_TIMEOUT", httpx.Timeout(0.2))
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        silent_port = silent.getsockname()[1]
        assert "does not answer" in str(refusal(f"http://127.0.0.1:{silent_port}"))
    # No port that the system gave and may give to another program at once.
    assert "nothing listens there" in str(refusal(f"http://127.0.0.1:{free_port()}"))


def test_a_connection_that_is_not_made_in_time_is_named_as_that() -> None:
    assert failure_text(httpx.ConnectTimeout("timed out"), "http://x") == "no connection within 5 s"


def test_the_object_store_has_the_same_sentences(tls_port: int) -> None:
    with pytest.raises(
        Unreachable, match=rf"no object store at 127.0.0.1:{tls_port}: its certificate is from"
    ) as caught:
        list(read_object(f"https://127.0.0.1:{tls_port}/key?X-Amz-Signature=abc"))
    assert "abc" not in str(caught.value)
