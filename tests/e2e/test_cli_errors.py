"""How commands end when something is wrong: one line, an exit code, and with --json one document."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from control_plane.cli.rest.client import ControlPlane
from tests.support.screen import BACKHAUL, backhaul, run_in_terminal, started

NOWHERE = "http://127.0.0.1:9"
UPLOAD: dict[str, Any] = {
    "upload_id": "0123456789abcdef0123456789abcdef",
    "client_id": "restaurant-1",
    "file_path": "/data/a.bin",
    "status": "in_progress",
    "state": "in_progress",
    "progress": 45.5,
    "bytes_uploaded": 45,
    "file_size": 100,
}


class Script(BaseHTTPRequestHandler):
    """A server that answers by the path, as control planes and the proxies before them do."""

    protocol_version = "HTTP/1.1"
    requests: list[tuple[str, str, dict[str, str]]]

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer()

    def answer(self) -> None:
        self.requests.append((self.command, self.path, dict(self.headers)))
        path = self.path.partition("?")[0]
        match path:
            case "/clients":
                self.send(200, {"clients": [{"client_id": f"{n:040}"} for n in range(2000)], "count": 2000})
            case "/uploads/slow":
                self.send(200, UPLOAD | {"upload_id": "slow"})
            case "/uploads/busy" if sum(one[1] == self.path for one in self.requests) == 1:
                self.send(503, {"title": "The database cannot be used now", "status": 503}, {"Retry-After": "1"})
            case "/uploads/busy":
                self.send(200, UPLOAD | {"upload_id": "busy", "status": "completed", "state": "completed"})
            case "/uploads/proxy":
                self.send(502, b"<html>Bad Gateway</html>")
            case "/uploads/other":
                self.send(200, b"hello")
            case "/uploads/locked":
                self.send(401, {"title": "A bearer token is needed", "detail": "the token has expired"})
            case "/trigger-download/flaky" if sum(one[1] == self.path for one in self.requests) == 1:
                self.close_connection = True
            case "/trigger-download/flaky":
                self.send(200, {"message": "triggered", "upload_id": "u1", "s3_key": "k", "status": "queued"})
            case _:
                self.send(404, {"type": "urn:x", "title": "No such upload", "status": 404, "detail": "none \x1b[2J"})

    def send(self, status: int, content: dict[str, Any] | bytes, headers: Mapping[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """The scripted server; its requests are in `Script.requests`."""
    Script.requests = []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_an_unreachable_server_exits_with_3() -> None:
    ended = backhaul("--server", NOWHERE, "clients")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.count("\n") == 1
    assert NOWHERE in ended.stderr


def test_a_problem_exits_with_1_and_one_line_without_control_characters(server: str) -> None:
    ended = backhaul("upload", "gone", "--server", server)
    assert ended.returncode == 1
    assert ended.stderr == "backhaul: No such upload: none \\x1b[2J\n"


def test_a_problem_is_one_document_with_json(server: str) -> None:
    ended = backhaul("--json", "upload", "gone", "--server", server)
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["type"] == "urn:x"


@pytest.mark.parametrize(
    ("upload_id", "code", "expected"),
    [("proxy", 1, "502 Bad Gateway"), ("other", 1, "not a Backhaul"), ("locked", 4, "BACKHAUL_TOKEN")],
)
def test_an_answer_that_is_not_a_control_planes_is_reported_in_one_line(
    server: str, upload_id: str, code: int, expected: str
) -> None:
    ended = backhaul("upload", upload_id, env={"BACKHAUL_URL": server})
    assert ended.returncode == code
    assert expected in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_waiting_continues_over_a_restart_of_the_control_plane(server: str) -> None:
    ended = backhaul("upload", "busy", "--wait", "--server", server)
    assert ended.returncode == 0, ended.stderr
    assert "trying again: The database cannot be used now" in ended.stderr


@pytest.mark.slow
def test_a_lost_answer_is_requested_again_with_the_same_key(server: str) -> None:
    ended = backhaul("trigger", "flaky", "--server", server)
    assert ended.returncode == 0, ended.stderr
    keys = [headers["Idempotency-Key"] for _, path, headers in Script.requests if "flaky" in path]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_the_token_is_sent(server: str) -> None:
    backhaul("clients", env={"BACKHAUL_URL": server, "BACKHAUL_TOKEN": "secret"})
    assert Script.requests[0][2]["Authorization"] == "Bearer secret"


@pytest.mark.slow
def test_a_closed_pipe_ends_the_command_without_a_traceback(server: str) -> None:
    shell = f"{' '.join(BACKHAUL)} clients --json --server {server}; echo $? >&2"
    ended = subprocess.run(
        ("bash", "-c", f"({shell}) | head -c 10"), capture_output=True, text=True, timeout=60, check=False
    )
    assert len(ended.stdout) == 10
    assert ended.stderr.strip() in {"0", "141"}


@pytest.mark.slow
def test_ctrl_c_while_waiting_leaves_the_upload_alone(server: str) -> None:
    command = (*BACKHAUL, "upload", "slow", "--wait", "--server", server)
    with started(command) as process:
        assert process.stderr is not None
        # The script has no event stream: the first line says so.
        assert "in_progress" in process.stderr.readline() + process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "the upload continues" in err
    assert all(method == "GET" for method, _, _ in Script.requests)


@pytest.mark.slow
def test_a_terminal_gets_a_bar_and_a_pipe_does_not(server: str) -> None:
    command = (*BACKHAUL, "upload", "slow", "--wait", "--server", server)
    screen = run_in_terminal(command, columns=80, interrupt_at="45%")
    assert "━" in screen.text
    assert "45%" in screen.text
    assert screen.moved


def test_a_table_in_a_pipe_is_neither_coloured_nor_cut(server: str) -> None:
    ended = backhaul("clients", "--server", server)
    assert "\x1b" not in ended.stdout
    assert f"{1999:040}" in ended.stdout


def test_a_character_outside_the_output_encoding_is_escaped(tmp_path: Path) -> None:
    state = tmp_path / "ü.json"
    ended = backhaul("mqtt", "resume", "u1", "--state", str(state), env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert ended.returncode == 2
    assert "\\xfc.json" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [("typer", ("clients",), "cli"), ("boto3", ("mqtt", "watch"), "cli"), ("uvicorn", ("serve",), "server")],
)
def test_a_missing_extra_is_reported_with_the_line_that_installs_it(
    module: str, arguments: tuple[str, ...], extra: str
) -> None:
    program = f"import sys; sys.modules[{module!r}] = None; from control_plane.cli.main import main; main()"
    command = (sys.executable, "-c", program, *arguments)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert f"pip install 'backhaul[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_serve_names_a_wrong_setting_and_a_taken_port(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MQTT_", "S3_"))}

    def serve(**settings: str) -> "subprocess.CompletedProcess[str]":
        given = {**clean, "DATABASE_URL": f"sqlite:///{tmp_path}/db", **settings}
        command = (*BACKHAUL, "serve")
        return subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=60, check=False)

    wrong = serve(SERVER_PORT="many")
    assert (wrong.returncode, wrong.stderr) == (2, "backhaul: SERVER_PORT=many: must be a whole number\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        late = serve(SERVER_PORT=str(port), AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
        unguarded = serve(SERVER_PORT=str(port), AUTH="off", LOG_LEVEL="error")
    assert late.returncode == 1
    assert f"SERVER_PORT={port}: Address already in use" in late.stderr
    assert "AUTH=off" not in late.stderr
    assert unguarded.stderr.startswith("AUTH=off and no JWT_SECRET: every caller that reaches this server")


@pytest.mark.slow
def test_serve_ends_when_one_of_its_loops_has_ended(tmp_path: Path) -> None:
    """A control plane that answers but does nothing would be the worst of both."""
    program = """
import sys
from control_plane.services.uploads.outbox import Outbox
async def fault(self):
    raise RuntimeError("a fault of ours")
Outbox.run = fault
from control_plane.cli.main import main
main()
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MQTT_", "S3_"))}
    keys = {"AWS_ENDPOINT": NOWHERE, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "SERVER_PORT": "0"}
    ended = subprocess.run(
        (sys.executable, "-c", program, "serve"),
        cwd=tmp_path,
        env={**clean, **keys, "MQTT_URL": "mqtt://127.0.0.1:9", "XDG_DATA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "a fault of ours" in ended.stderr
    assert "has ended" in ended.stderr.splitlines()[-1]


@pytest.mark.slow
def test_serve_names_its_database_and_ends_well_at_sigterm(tmp_path: Path) -> None:
    """A relative default would be another database in each working folder; a stopped service has not failed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MQTT_", "S3_"))}
    keys = {"AWS_ENDPOINT": NOWHERE, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "SERVER_PORT": "0"}
    env = {**clean, **keys, "MQTT_URL": "mqtt://127.0.0.1:9", "XDG_DATA_HOME": str(tmp_path / "data")}
    with started((*BACKHAUL, "serve", "--json"), env=env) as process:
        assert process.stdout is not None
        shown = json.loads(process.stdout.readline())
        with ControlPlane(shown["url"]) as plane:
            plane.clients()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert shown["database"] == str(tmp_path / "data/backhaul/backhaul.db")
    assert (tmp_path / "data/backhaul").stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_an_error_of_the_database_names_its_file(tmp_path: Path) -> None:
    env = {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path}/none/x.db"}
    command = (*BACKHAUL, "serve")
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert f"the database {tmp_path}/none/x.db: unable to open database file" in ended.stderr
