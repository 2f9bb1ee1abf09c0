"""Every command that is printed works where it is pasted."""

import ast
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from control_plane.cli.commands import build
from control_plane.cli.mqtt.state_file import state_step
from control_plane.cli.program import command_line, program
from control_plane.cli.session import CliSession, Given

CLI: Final = Path(__file__).parents[3] / "control_plane" / "cli"


def test_a_program_that_only_this_process_has_on_its_path_is_named_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make demo` puts its environment on PATH; the shell into which the command is pasted has not."""
    own = tmp_path / "with space" / "backhaul"
    own.parent.mkdir()
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(own.parent))
    monkeypatch.setattr(sys, "argv", [str(own)])
    assert program() == f"'{own}'"


def test_a_program_that_every_shell_finds_is_named_shortly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "backhaul"
    own.touch(0o755)
    monkeypatch.setattr("os.confstr", lambda _: str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(own)])
    assert program() == "backhaul"


def test_what_is_printed_without_an_installed_script_runs_in_an_empty_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["-m"])
    ended = subprocess.run(
        ("/bin/sh", "-c", f"{program()} --version"), cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert shlex.split(program())[0] == sys.executable


def words_of(line: str) -> list[str]:
    """What a shell gives to the program of this line."""
    before = len(shlex.split(program()))
    return shlex.split(line)[before:]


def test_what_a_command_is_about_is_last_and_is_never_an_option() -> None:
    assert words_of(command_line("job", "show", about=["nightly"])) == ["job", "show", "nightly"]
    step = CliSession(Given(server="http://127.0.0.1:9", token_file=Path("a b"))).step("upload", "show", about=["-x"])
    typed = ["--server", "http://127.0.0.1:9", "--token-file", "a b"]
    assert words_of(step) == ["upload", "show", *typed, "--", "-x"]


def test_a_value_with_a_blank_or_a_quotation_mark_stays_one_word() -> None:
    for word in ("a b", "it's", "$(touch run)", "", "-x y", "Küche;ls"):
        assert words_of(command_line("files", "--type", word, about=["c", word]))[-2:] == ["c", word]


def test_the_step_of_a_direct_upload_names_its_state_file(tmp_path: Path) -> None:
    path = tmp_path / "its state.json"
    assert words_of(state_step("resume", "-x", path)) == ["mqtt", "resume", "--state", str(path), "--", "-x"]


def test_the_command_line_takes_such_a_step() -> None:
    """An upload whose id begins with `-` is asked for at the control plane, and not refused as wrong usage."""
    step = CliSession(Given(server="http://127.0.0.1:9")).step("upload", "show", about=["-x"])
    ended = CliRunner().invoke(build(), words_of(step))
    assert (ended.exit_code, "127.0.0.1:9" in ended.stderr) == (3, True), ended.stderr


def by_hand(text: str) -> list[str]:
    """The f-strings that put a value into a printed command themselves: a value between the program and the end."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.JoinedStr):
            continue
        inside = False
        for part in node.values:
            if isinstance(part, ast.Constant):
                inside = inside and "`" not in str(part.value)
            elif inside:
                found.append(ast.unparse(node))
            else:
                inside = ast.unparse(part) in {"{program()}", "{backhaul}"} or "program()" in ast.unparse(part)
    return found


def test_no_printed_command_gets_its_values_elsewhere() -> None:
    """`command_line` quotes them, and puts `--` before them, once for all."""
    modules = sorted(CLI.rglob("*.py"))
    own = "program.py"
    assert {path.name: found for path in modules if path.name != own and (found := by_hand(path.read_text()))} == {}
    assert by_hand('f"`{program()} device show {name}` shows it"') == ["f'`{program()} device show {name}` shows it'"]
    assert by_hand('f"`{program()} page` signs in {name}"') == []
