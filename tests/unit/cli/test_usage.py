"""Wrong usage ends with exit code 2 and an explanation, before anything is sent."""

import os
import pwd
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from control_plane.api.auth import signed_in
from control_plane.cli.commands import build
from control_plane.cli.rest.client import ControlPlane

ANYWHERE = ".".join("0000")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("trigger",), "CLIENT"),
        (("nonsense",), "nonsense"),
        (("clients", "--server", "ftp://x"), "ftp://x"),
        (("trigger", "c", "-m", "novalue"), "key=value"),
        (("trigger", "c", "--deadline", "soon"), "soon"),
        (("upload", ".."), "names nothing"),
        (("clients", "--state", "away"), "away"),
        (("client", "add"), "name one client, or a CSV"),
        (("client", "add", "c", "--file", "/dev/null"), "name one client, or a CSV"),
        (("client", "add", "--file", "/dev/null", "--note", "x"), "the CSV has columns"),
        (("client", "add", "--file", "/nowhere.csv"), "/nowhere.csv"),
        (("client", "add", "c", "--label", "novalue"), "key=value"),
        (("client", "label", ".."), "names nothing"),
        (("mqtt", "trigger", "cli-x"), "client id"),
        (("mqtt", "trigger", "c", "--deadline", "soon"), "soon"),
        (("mqtt", "trigger", "c", "--print", "--ask-control-plane"), "choose one"),
        (("mqtt", "resume", "never-begun"), "never-begun.json"),
        (("broker", "enroll", "not a name"), "client id"),
        (("token", "create", "--lifetime", "soon"), "soon"),
        (("token", "create", "--lifetime", "25h"), "at most 86,400 s (MAX_TOKEN_LIFETIME)"),
        (("token", "create", "--lifetime", "0.5s"), "lifetime must be"),
        (("token", "create", "--subject", "a\nb"), "128 printable"),
        (("token", "create", "--subject", "a" * 129), "128 printable"),
        (("token", "create", "--scope", ""), "leave it out for everything"),
        (("token", "create", "--scope", "uploads:read", "--scope", "x:y"), "--scope x:y: there is no such scope"),
        (("token", "create", "--clients", " "), "leave it out for all clients"),
        (("token", "create", "--clients", "site in berlin"), "--clients"),
        (("token", "create", "--secret-file", "/dev/null"), "JWT_SECRET is not set"),
        (("token", "create", "--secret-file", "/nowhere"), "/nowhere: the secret cannot be read: No such file"),
        (("token", "revoke", "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"), "send the token to standard input"),
        (("--server", "", "clients"), "'' is not a server"),
        (("trigger", "c", "--idempotency-key", "é"), "--idempotency-key"),
        (("trigger", "c", "/data/\udcff"), "no text"),
        (("status", "\udcff"), "no text"),
        (("mqtt", "trigger", "c", "--print", "--size", "99999999999999999"), "99999999999999999"),
        (("mqtt", "watch", "a/b"), "client id"),
        (("mqtt", "cancel", "up1", "--client", "operator-x"), "client id"),
        (("broker", "revoke", "x", "--topic-root", "#", "--directory", "."), "topic root"),
        (("up", "--listen", ANYWHERE), "one address"),
        (("demo", "--broker", "other"), "other"),
    ],
)
def test_wrong_usage_exits_with_2(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET", "s" * 32)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    ended = CliRunner().invoke(build(), list(arguments))
    assert ended.exit_code == 2, ended.output
    assert ended.stdout == ""
    assert expected in ended.stderr


def test_an_id_of_a_token_may_have_dots() -> None:
    ended = CliRunner().invoke(build(), ["token", "show", "urn.id.1", "--server", "http://127.0.0.1:9"])
    assert "standard input" not in ended.stderr
    assert "http://127.0.0.1:9" in ended.stderr


@pytest.mark.parametrize("arguments", [("serve", "--check"), ("mqtt", "watch"), ("token", "create")])
def test_an_env_file_that_is_not_text_exits_with_2(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(b"LOG_LEVEL=\xff\n")
    ended = CliRunner().invoke(build(), list(arguments))
    assert ended.exit_code == 2, ended.output
    assert ".env cannot be read" in ended.stderr


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_a_database_at_the_place_of_an_earlier_version_is_not_left_behind(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default that moves: with a new, empty database every upload that was accepted would be lost."""
    monkeypatch.setattr("control_plane.observability.configure_logging", lambda _level: print)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backhaul.db").touch()
    ended = CliRunner().invoke(build(), [command])
    assert ended.exit_code == 2, ended.output
    assert f"move it to {tmp_path}/data/backhaul/backhaul.db" in ended.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("home", [None, "/dev/null"])
@pytest.mark.parametrize(
    "arguments", [("serve",), ("doctor",), ("up",), ("mqtt", "trigger", "c")], ids=lambda words: words[0]
)
def test_a_user_without_a_usable_home_folder_gets_one_line(
    arguments: tuple[str, ...], home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default place that depends on the user: users of containers and of services have no home."""

    def unknown(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr("control_plane.observability.configure_logging", lambda _level: print)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(build(), list(arguments))
    assert ended.exit_code == 2, ended.output
    assert isinstance(ended.exception, SystemExit)
    assert ("no home folder: " in ended.stderr) if home is None else (f"{home}/" in ended.stderr)


def test_every_command_has_a_help_text_and_takes_json() -> None:
    runner, app = CliRunner(), build()
    arguments = [name for command in app.registered_commands if (name := command.name)]
    for word in arguments:
        text = runner.invoke(app, [word, "--help"]).stdout
        assert "--json" in text, word
    assert {"trigger", "status", "clients", "uploads", "cancel", "retry", "files", "serve", "up", "demo"} <= set(
        arguments
    )


def test_the_version_needs_no_command() -> None:
    ended = CliRunner().invoke(build(), ["--version"])
    assert (ended.exit_code, ended.stdout.strip()) == (0, version("backhaul"))


def test_the_token_stands_alone_on_its_line(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32 + "\n")
    for place, given in ((str(secret), None), ("-", "s" * 32 + "\r\n")):
        ended = CliRunner().invoke(build(), ["token", "create", "--secret-file", place, "--subject", "ann"], given)
        assert ended.exit_code == 0, ended.output
        assert ended.stdout.count("\n") == 1
        assert signed_in("s" * 32, ended.stdout.strip(), 86_400).principal.subject == "ann"


def test_accounts_are_made_listed_and_removed(tmp_path: Path) -> None:
    runner, app, where = CliRunner(), build(), ["--directory", str(tmp_path)]
    made = runner.invoke(app, ["broker", "enroll", "restaurant-1", *where])
    assert made.stdout.startswith("MQTT_USERNAME=restaurant-1\nMQTT_PASSWORD=")
    assert runner.invoke(app, ["broker", "enroll", "restaurant-1", *where]).exit_code == 1
    assert runner.invoke(app, ["broker", "enroll", "operator-ann", *where]).exit_code == 0
    assert runner.invoke(app, ["broker", "accounts", *where]).stdout == "operator-ann\nrestaurant-1\n"
    revoked = runner.invoke(app, ["broker", "revoke", "restaurant-1", *where])
    # Until then its connection goes on: nothing else tells the broker.
    assert (revoked.exit_code, "at its next SIGHUP" in revoked.stderr) == (0, True), revoked.output
    assert runner.invoke(app, ["broker", "accounts", *where]).stdout == "operator-ann\n"


@pytest.mark.parametrize("given", ["", "  ", "9f2c", "z" * 32])
@pytest.mark.parametrize("command", ["approve 4F7K-2QXM --name till-7", "accept-key till-7"])
def test_what_is_no_fingerprint_is_compared_with_nothing(command: str, given: str) -> None:
    """A script with an empty variable: the control plane's own answer must not be taken for what a person saw."""
    words = ["--server", "http://127.0.0.1:9", "device", *command.split(), "--fingerprint", given]
    ended = CliRunner().invoke(build(), words)
    assert (ended.exit_code, "32 hex digits" in ended.stderr) == (2, True), ended.output


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ([], "--roots and --hosts"),
        (["--roots", "/data"], "--hosts"),
        (["--hosts", "s3.example.com"], "--roots"),
        (["--roots", "/data", "--hosts", "s3.example.com"], None),
    ],
)
def test_a_new_bundle_says_what_it_does_not_bring(
    given: list[str], missing: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control plane keeps nothing that a device was enrolled with: a device that had it by bundle sends nothing."""

    def call(_: ControlPlane, *_path: str, json: dict[str, Any]) -> dict[str, Any]:
        held = {name: json.get(name, []) for name in ("allowed_roots", "upload_hosts")}
        return {"client_id": "till-7", "mqtt_password": "p", "root": {}, **held}

    monkeypatch.setattr(ControlPlane, "call", call)
    words = ["--yes", "device", "rotate", "till-7", "--out", str(tmp_path / "bundle.json"), *given]
    ended = CliRunner().invoke(build(), words)
    assert ended.exit_code == 0, ended.output
    notes = [line for line in ended.stderr.splitlines() if "does not bring" in line]
    assert len(notes) == (missing is not None)
    assert missing is None or f"its {missing}" in notes[0]


def test_a_server_starts_with_its_own_command_alone_which_is_the_same() -> None:
    """To build all other commands takes an eighth of a start."""
    code = (
        "import sys; from control_plane.cli.main import main; main(); "
        "sys.exit('loaded' if {'httpx', 'control_plane.cli.commands'} & set(sys.modules) else 0)"
    )
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb"}
    alone = subprocess.run(
        [sys.executable, "-c", code, "serve", "--help"], env=environment, capture_output=True, text=True, check=True
    )
    runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"})
    among_all = runner.invoke(build(), ["serve", "--help"], prog_name="-c", terminal_width=100)
    assert alone.stdout == among_all.stdout
    assert "--check" in alone.stdout
