"""Every command that is printed works where it is pasted."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.cli.program import program


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
