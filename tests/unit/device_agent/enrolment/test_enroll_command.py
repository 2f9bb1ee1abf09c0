"""`backhaul-agent enroll` where the network, the disk or the operator is in the way.

Rule: the calls go over HTTP to a server of the test, which seals a real bundle; only its answers are the test's.
"""

import errno
import json
import os
import stat
import threading
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from nacl import bindings

from device_agent.command_line.enroll import run_enroll
from schemas.signing.canonical import from_text, to_text
from schemas.signing.enrolment import Bundle
from schemas.signing.trust import root_digest
from tests.support.devices import a_root

PORTAL: Final = (200, b"<html>Welcome to the hotel</html>")
GONE: Final = (404, b'{"detail": "no device asks with this code"}')
BUNDLE: Final = Bundle(client_id="till-7", mqtt_url="mqtts://broker.example.com:8883", root=a_root())


@dataclass
class Plane:
    """What answers, and what it was asked. An answer of `answers` comes before the usual one."""

    answers: list[tuple[int, bytes]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    polled: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        if path == "/enroll":
            self.asked.append(body)
            usual: dict[str, Any] = {"device_code": f"{len(self.asked):043}", "user_code": "4F7K-2QXM"}
            usual |= {"interval": 1, "expires_in": 60}
        else:
            self.polled.append(body)
            seal_to = from_text(self.asked[-1]["seal_to"], 32)
            usual = {"interval": 1, "sealed": to_text(bindings.crypto_box_seal(msgspec.json.encode(BUNDLE), seal_to))}
        return self.answers.pop(0) if self.answers else (200, json.dumps(usual).encode())


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture
def options(plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Namespace]:
    """As the command line gives them; a captive portal is asked again at once."""
    monkeypatch.setattr("device_agent.enrolment.exchange.RETRY", 0.0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = plane.answer(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        yield Namespace(
            url=url,
            root_sha256=root_digest(a_root()),
            ca_file=None,
            out=tmp_path / "bundle.json",
            batch_token_file=None,
            serial=None,
        )
        server.shutdown()
        thread.join(60)


def test_a_captive_portal_is_named_once_and_asked_again(
    plane: Plane, options: Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    plane.answers = [PORTAL, PORTAL]
    assert run_enroll(options) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "status 200 and no JSON: this is no control plane" in line
    assert json.loads(options.out.read_bytes())["client_id"] == "till-7"
    assert stat.S_IMODE(options.out.stat().st_mode) == 0o600
    assert sorted(path.name for path in options.out.parent.iterdir()) == ["bundle.json"]


@pytest.mark.parametrize(
    "answer",
    [
        PORTAL,
        (404, b"<html>no such page</html>"),
        (200, b'{"interval": "soon"}'),
        *((status, b'{"x":' + b"[" * 50_000) for status in (200, 404, 503)),
    ],
)
def test_a_portal_between_two_polls_ends_nothing(
    answer: tuple[int, bytes], plane: Plane, options: Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    first = plane.answer

    def then(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        if path == "/enroll":
            found = first(path, body)
            plane.answers = [answer]
            return found
        return first(path, body)

    plane.answer = then  # type: ignore[method-assign]
    assert run_enroll(options) == 0
    assert "trying again" in capsys.readouterr().err
    assert (len(plane.asked), len(plane.polled)) == (1, 2)


def test_a_full_disk_loses_no_bundle(
    plane: Plane, options: Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sync = os.fsync

    def full(descriptor: int) -> None:
        if options.out.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert run_enroll(options) == 1
    assert "No space left on device. The control plane keeps the bundle for a day" in capsys.readouterr().err
    assert not options.out.exists()
    assert run_enroll(options) == 0
    # The same request was polled again, with a higher number: nobody had to approve a second one.
    assert (len(plane.asked), [one["device_code"] for one in plane.polled]) == (1, [f"{1:043}"] * 2)
    assert plane.polled[0]["sequence"] < plane.polled[1]["sequence"]
    assert json.loads(options.out.read_bytes())["device_seed"]


def test_a_code_that_expired_is_asked_anew_with_the_same_key(plane: Plane, options: Namespace) -> None:
    first = plane.answer

    def then(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        return GONE if path == "/enroll/poll" and len(plane.asked) == 1 else first(path, body)

    plane.answer = then  # type: ignore[method-assign]
    assert run_enroll(options) == 1
    assert run_enroll(options) == 0
    assert [one["key"] for one in plane.asked] == [plane.asked[0]["key"]] * 2


def test_a_damaged_request_file_is_replaced(plane: Plane, options: Namespace) -> None:
    place = options.out.with_name("bundle.json.request")
    place.write_bytes(b"{half")
    assert run_enroll(options) == 0
    assert (len(plane.asked), place.exists()) == (1, False)


def test_the_token_of_a_batch_comes_from_a_file_and_is_shown_nowhere(
    plane: Plane, options: Namespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, token = tmp_path / "token.txt", "tok_" + "A" * 39
    file.write_text(f"{token}\n")
    options.batch_token_file, options.serial = str(file), "A-7"
    assert run_enroll(options) == 0
    (asked,) = plane.asked
    assert (asked["token"], asked["serial"]) == (token, "A-7")
    shown = capsys.readouterr()
    assert token not in shown.out + shown.err + options.out.read_text()


def test_a_file_without_a_token_asks_nothing_and_is_not_quoted(
    plane: Plane, options: Namespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token.txt"
    file.write_text("half-a-secret")
    options.batch_token_file = str(file)
    assert run_enroll(options) == 1
    assert plane.asked == []
    assert "half-a-secret" not in capsys.readouterr().err


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_control_plane_is_asked_again_with_the_same_request(
    status: int, plane: Plane, options: Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    plane.answers = [(status, b'{"detail": "it is busy"}')] * 2
    assert run_enroll(options) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "it is busy; trying again" in line
    assert (len(plane.asked), plane.asked[1:]) == (3, [plane.asked[0]] * 2)
