"""What is typed is taken before what the environment has, wherever it is typed; and a secret is never typed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from control_plane.cli.commands import build
from control_plane.cli.rest.client import ControlPlane

ENVIRONMENT = {"BACKHAUL_URL": "http://127.0.0.1:1", "BACKHAUL_TOKEN": "of-the-environment"}
TYPED = "http://127.0.0.1:2"
FIRST = "http://127.0.0.1:3"


def every_option() -> Iterator[tuple[str, Any, Any]]:
    """Each option of each command, with the command's whole name."""
    waiting: list[tuple[str, Any]] = [("backhaul", typer.main.get_command(build()))]
    while waiting:
        name, command = waiting.pop()
        waiting += [(f"{name} {word}", one) for word, one in getattr(command, "commands", {}).items()]
        for option in command.params:
            if option.param_type_name == "option":
                yield name, command, option


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        (("clients",), ENVIRONMENT["BACKHAUL_URL"]),
        (("--server", TYPED, "clients"), TYPED),
        (("clients", "--server", TYPED), TYPED),
        (("--server", FIRST, "clients", "--server", TYPED), TYPED),
        (("--server", TYPED, "trigger", "restaurant-1"), TYPED),
        (("--server", TYPED, "simulate", "--devices", "1", "--trigger"), TYPED),
    ],
)
def test_a_typed_server_is_taken_before_the_environments(
    arguments: tuple[str, ...], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a command for staging goes to production."""
    reached: list[str] = []

    def reach(server: str, token: str | None, _why: str | None = None) -> None:
        reached.append(server)
        raise KeyboardInterrupt

    monkeypatch.setattr("control_plane.cli.rest.client.ControlPlane", reach)
    monkeypatch.setattr("control_plane.cli.simulate.command.ServerAddress", reach)
    CliRunner().invoke(build(), arguments, env=ENVIRONMENT)
    assert reached == [taken]


@pytest.mark.parametrize(
    ("before", "after", "taken"),
    [(None, None, "of-the-environment"), ("a", None, "in-a"), (None, "a", "in-a"), ("b", "a", "in-a")],
)
def test_a_typed_token_file_is_taken_before_the_environments_token(
    before: str | None, after: str | None, taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"in-{name}\n")
    tokens: list[str | None] = []

    def reach(_: str, token: str | None, _why: str | None) -> None:
        tokens.append(token)
        raise KeyboardInterrupt

    monkeypatch.setattr("control_plane.cli.rest.client.ControlPlane", reach)
    arguments = [*(("--token-file", before) if before else ()), "clients", *(("--token-file", after) if after else ())]
    CliRunner().invoke(build(), arguments, env=ENVIRONMENT)
    assert tokens == [taken]


def test_every_option_with_a_variable_takes_what_is_typed() -> None:
    """And no such option stands on two levels, where the inner one's variable would overrule the outer one's value."""
    with_variable = [(name, command, option) for name, command, option in every_option() if option.envvar]
    assert {option.opts[0] for _, _, option in with_variable} == {"--directory", "--topic-root", "--mqtt-url"}
    outer = {option.name for name, _, option in every_option() if name == "backhaul"}
    for _, command, option in with_variable:
        assert option.name not in outer
        typed = typer.Context(command), {option.name: "typed"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(option.envvar, "of-the-environment")
            assert option.consume_value(*typed)[0] == "typed"


def test_no_option_takes_a_secret_itself() -> None:
    """Each user of the machine can read the arguments of a running command."""
    secret = ("token", "secret", "password", "key")
    named = {one for _, _, option in every_option() for one in option.opts if any(word in one for word in secret)}
    files = {"--token-file", "--secret-file", "--password-file", "--key-file", "--root-key"}
    # `--key` of `audit verify` is the public key of the audit; `--keys` lists the devices with theirs.
    public = {"--key", "--public-key", "--keys"}
    assert named == {*files, *public, "--idempotency-key"}


@pytest.mark.parametrize("token", ["abc\ndef", "abc def", "abc\x00", "abcdéf", "abc\r\nX-Evil: 1"])
def test_a_token_that_no_header_can_carry_is_refused_without_a_part_of_it(token: str) -> None:
    ended = CliRunner().invoke(
        build(), ["--server", TYPED, "clients"], env={"BACKHAUL_TOKEN": token.replace("\x00", "\x01")}
    )
    assert ended.exit_code == 2, ended.output
    assert ended.stderr.count("\n") == 1
    assert "token" in ended.stderr.lower()
    assert "abc" not in ended.stderr


def test_line_breaks_around_a_token_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    monkeypatch.setattr(ControlPlane, "call", lambda self, *_, **__: sent.append(self._http.headers["Authorization"]))
    CliRunner().invoke(build(), ["--server", TYPED, "status", "a"], env={"BACKHAUL_TOKEN": "abc\r\n"})
    assert sent == ["Bearer abc"]


def test_a_password_in_the_servers_url_is_in_no_message() -> None:
    ended = CliRunner().invoke(build(), ["--server", "http://me:hunter2@127.0.0.1:1", "clients"])
    assert ended.exit_code == 3
    assert "hunter2" not in ended.output
