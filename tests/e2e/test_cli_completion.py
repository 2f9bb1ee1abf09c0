"""Completion in a real bash and a real zsh: keys are typed, and the shell's line is read back.

Rule: the shells start without the user's files; the control plane is a scripted one.
"""

import os
import pty
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.screen import backhaul
from tests.support.scripted_rest import UPLOAD_ID, scripted_rest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PATIENCE = 60.0
SHELLS = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
}
LISTED = {
    "bash": r"bind 'set bell-style none'; bind 'set page-completions off'; bind 'set completion-query-items 0'",
    "zsh": "unsetopt beep prompt_sp list_beep; setopt no_auto_menu; PROMPT='%% '",
}

LINES = {
    "backhaul client show restaurant-": "backhaul client show restaurant-7",
    "backhaul job show ni": "backhaul job show nightly-1",
    "backhaul schedule show ev": "backhaul schedule show every-day",
    "backhaul group show be": "backhaul group show beta",
    f"backhaul upload show {UPLOAD_ID[:4]}": f"backhaul upload show {UPLOAD_ID}",
    "backhaul trigger restaurant-7 /": "backhaul trigger restaurant-7 /data/",
    "backhaul client files restaurant-7 /data/lo": "backhaul client files restaurant-7 /data/logs/",
    "backhaul trigger restaurant-7 /data/dai": "backhaul trigger restaurant-7 /data/daily\\ sales.csv",
    "backhaul client list --out": "backhaul client list --output",
}
"""What is typed before the key, and what stands there after it."""


class Shell:
    """A shell in a terminal of 200 columns."""

    def __init__(self, name: str, folder: Path, url: str) -> None:
        self._ours, theirs = pty.openpty()
        env = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            "COLUMNS": "200",
            "PS1": "$ ",
            "BACKHAUL_URL": url,
            "XDG_CONFIG_HOME": str(folder / "config"),
        }
        self._process = subprocess.Popen(
            SHELLS[name], stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=folder, start_new_session=True
        )
        os.close(theirs)

    def type(self, keys: str) -> None:
        """Send keys."""
        os.write(self._ours, keys.encode())

    def until(self, text: str, again: str = "") -> str:
        """What the shell wrote, until this was in it; `again` are keys that are typed every few seconds meanwhile."""
        seen, end = "", time.monotonic() + PATIENCE
        pressed = time.monotonic()
        while text not in seen and time.monotonic() < end:
            if select.select([self._ours], [], [], 0.1)[0]:
                seen += os.read(self._ours, 65_536).decode(errors="replace")
            if again and time.monotonic() > pressed + 5:
                self.type(again)
                pressed = time.monotonic()
        assert text in seen, f"waited for {text!r}: {seen!r}"
        return seen

    def close(self) -> None:
        """End the shell."""
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


@contextmanager
def shell(name: str, folder: Path, url: str) -> Iterator[Shell]:
    """A shell with the completion of this program."""
    program = folder / "backhaul"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.argv[0] = \'{program}\'; '
                       'from control_plane.cli.main import main; main()" "$@"\n')  # fmt: skip
    program.chmod(0o755)
    (folder / "completion").write_text(backhaul("completion", name).stdout)
    opened = Shell(name, folder, url)
    try:
        opened.type(f"{LISTED[name]}\n. ./completion\necho 're''ady'\n")
        opened.until("ready\r\n")
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_a_key_completes_commands_names_and_paths_of_a_device(name: str, tmp_path: Path) -> None:
    """Clients, jobs, schedules, groups, uploads, folders and files of a client, options."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    with scripted_rest() as (url, rows), shell(name, tmp_path, url) as opened:
        rows.clients = [one for one in rows.clients if one["client_id"] == "restaurant-7"]
        for typed, completed in LINES.items():
            opened.type(f"{typed}\t")
            # On a busy machine the control plane answers too late: a person presses the key again.
            opened.until(completed, again="\t")
            opened.type("\x15echo 're''ady'\n")
            opened.until("ready\r\n")
        assert rows.requests


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_a_control_plane_that_does_not_answer_shows_nothing(name: str, tmp_path: Path) -> None:
    """A port that takes connections and is silent: the key ends by itself, and the line is as it was."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with shell(name, tmp_path, url) as opened:
            opened.type("echo backhaul client show zz\x01\x04\x04\x04\x04\x04\x05\t")
            after = "\x15echo 'do''ne'\n"
            opened.type(after)
            # While it completes, a shell may drop what is typed: a person types it again.
            seen = opened.until("done\r\n", again=after)
            assert "Traceback" not in seen
            assert "backhaul: " not in seen
