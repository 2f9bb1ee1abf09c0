"""Streams that are closed, full, or closed by their reader end a command in one line with the right exit code."""

import os
import shlex
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.screen import BACKHAUL, run_in_terminal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full"),
]
COMMANDS = (
    "clients",
    "--json clients",
    "uploads",
    "upload u1",
    "upload u1 --wait",
    "trigger restaurant-1",
    "status restaurant-1",
    "files restaurant-1",
    "url u1",
    "cancel u1",
    "watch",
    "token create --subject me",
    "broker accounts --directory .",
    "serve --check",
    "--version",
    "--help",
    "clients --help",
)
CLOSED = ("clients", "--json clients", "--help")
"""One for each way of printing; a closed stream differs from a full one before the command begins."""


class Plane(BaseHTTPRequestHandler):
    """Answers everything with one document that has the members of every answer."""

    def do_GET(self) -> None:
        body = (
            b'{"clients": [{"client_id": "a"}], "uploads": [], "files": [], "count": 1, "set": null, "upload_id": "u1",'
            b' "status": "completed", "state": "completed", "url": "http://x", "client_id": "a", "connected": true}'
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def plane() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Plane)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def run(command: str, redirection: str, plane: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    (directory / "passwords").touch()
    given = {"BACKHAUL_URL": plane, "JWT_SECRET": "s" * 32, "COLUMNS": "0"}
    return subprocess.run(
        ("bash", "-c", f"{shlex.join(BACKHAUL)} {command} {redirection}"),
        cwd=directory, env={**os.environ, **given}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("redirection", "why", "command"),
    [
        *((">/dev/full", "No space left on device", command) for command in COMMANDS),
        *((">&-", "Bad file descriptor", command) for command in CLOSED),
    ],
)
def test_an_output_that_cannot_be_written_ends_in_one_line(
    redirection: str, why: str, command: str, plane: str, tmp_path: Path
) -> None:
    """Python has no stream where the descriptor is closed, and shows a full disk only at its own end."""
    ended = run(command, redirection, plane, tmp_path)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.endswith(f"standard output cannot be written: {why}\n")
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_an_error_stream_that_cannot_be_written_changes_no_exit_code(
    redirection: str, plane: str, tmp_path: Path
) -> None:
    assert run("upload u1 --wait", redirection, plane, tmp_path).returncode == 0
    assert run("clients --server http://127.0.0.1:9", redirection, plane, tmp_path).returncode == 3
    both = run("clients", f">&- {redirection}", plane, tmp_path)
    assert (both.returncode, both.stdout, both.stderr) == (1, "", "")


def test_a_closed_pipe_as_the_error_stream_changes_no_exit_code(plane: str) -> None:
    """Python flushes the stream once more at its end, and exits with 120 where that fails."""
    for words, server, code in (("upload u1 --wait", plane, 0), ("clients", "http://127.0.0.1:9", 3)):
        reading, writing = os.pipe()
        os.close(reading)
        command = (*BACKHAUL, *words.split(), "--server", server)
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=writing, timeout=60, check=False)
        os.close(writing)
        assert (ended.returncode, bool(ended.stdout)) == (code, code == 0)


@pytest.mark.parametrize("columns", ["0", "00", ""])
def test_a_width_of_zero_is_none(plane: str, columns: str) -> None:
    command = ("env", f"COLUMNS={columns}", *BACKHAUL, "--server", plane, "clients")
    assert "last heard" in run_in_terminal(command, columns=80).text
