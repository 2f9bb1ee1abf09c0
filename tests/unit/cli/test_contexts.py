"""Contexts: what is typed, then the environment, then the context; and no token reaches another server."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from control_plane.cli.commands import build
from control_plane.cli.contexts.store import KnownPlane, config_file, load, target_of
from control_plane.cli.errors import Misused

HERE, THERE = "http://127.0.0.1:1", "http://127.0.0.1:2"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without contexts and variables."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("BACKHAUL_URL", "BACKHAUL_TOKEN", "BACKHAUL_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(*words: str, text: str | None = None, code: int = 0) -> str:
    """The output of a line of `backhaul context`."""
    ended = CliRunner().invoke(build(), ["context", *words], input=text)
    assert ended.exit_code == code, ended.output
    return ended.output


def test_a_context_is_added_used_listed_and_removed(home: Path) -> None:
    file = home / "token"
    file.write_text("of-a-file\n")
    run("add", "here", "--server", HERE, "--token-file", str(file))
    assert "BACKHAUL" not in run("add", "there", "--server", THERE, "--token-file", "-", text="of-stdin\n")
    assert config_file().stat().st_mode & 0o777 == 0o600
    assert load().places == {"here": KnownPlane(HERE, str(file)), "there": KnownPlane(THERE, None, "of-stdin")}
    assert load().current == "here"
    assert target_of().token == "of-a-file"
    run("use", "there")
    assert target_of().server == THERE
    listed = json.loads(run("list", "--json"))["contexts"]
    assert [(row["name"], row["current"]) for row in listed] == [("here", False), ("there", True)]
    assert "of-stdin" not in run("list") + run("show") + run("show", "there")
    run("remove", "there")
    assert load().current is None
    assert "there is no context 'there'" in run("use", "there", code=2)


def test_what_is_typed_then_the_environment_then_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    run("add", "here", "--server", HERE, "--token-file", "-", text="token-of-here")
    run("add", "there", "--server", THERE, "--token-file", "-", text="token-of-there")
    assert (target_of().server, target_of().token) == (HERE, "token-of-here")
    monkeypatch.setenv("BACKHAUL_CONTEXT", "there")
    assert (target_of().server, target_of().token) == (THERE, "token-of-there")
    monkeypatch.setenv("BACKHAUL_TOKEN", "of-the-environment")
    assert (target_of().server, target_of().token) == (THERE, "of-the-environment")
    # A context that is typed is taken whole.
    assert (target_of(context="here").server, target_of(context="here").token) == (HERE, "token-of-here")
    monkeypatch.setenv("BACKHAUL_URL", "http://127.0.0.1:3")
    assert target_of().server == "http://127.0.0.1:3"
    assert target_of(server=HERE, token="typed").token == "typed"


def test_the_token_of_a_context_is_sent_to_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    run("add", "here", "--server", HERE, "--token-file", "-", text="token-of-here")
    assert target_of(server=THERE).token is None
    assert target_of(server=THERE, context="here").token is None
    assert target_of(server=HERE).token == "token-of-here"
    monkeypatch.setenv("BACKHAUL_URL", THERE)
    assert target_of().token is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("current = [", "config.toml"),
        ("current = 1", "`current` a text"),
        ("[contexts.a]\nserver = 1", "a table of texts"),
        ("[contexts.a]\ntoken = 'x'", "has no server"),
        ("[contexts.a]\nserver = 'x'\ncolour = 'red'", "has no colour"),
    ],
)
def test_a_damaged_file_is_named(text: str, why: str) -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text(text)
    config_file().chmod(0o600)
    with pytest.raises(Misused, match=why):
        target_of()


def test_a_file_that_others_can_read_is_refused() -> None:
    run("add", "here", "--server", HERE)
    config_file().chmod(0o644)
    with pytest.raises(Misused, match="chmod 600"):
        target_of()


def test_wrong_contexts_are_a_misuse(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no name of a context" in run("add", "a b", code=2)
    assert "is not a server" in run("add", "a", "--server", "ftp://x", code=2)
    assert "no token to keep" in run("add", "a", "--from-environment", code=2)
    assert "the secret cannot be read" in run("add", "a", "--token-file", "/nowhere", code=2)
    monkeypatch.setenv("BACKHAUL_TOKEN", "kept")
    assert "choose one" in run("add", "a", "--from-environment", "--token-file", "-", code=2)
    run("add", "a", "--from-environment")
    assert load().places["a"].token == "kept"
    assert "comes first" in CliRunner().invoke(build(), ["context", "use", "a"], env={"BACKHAUL_URL": HERE}).output
