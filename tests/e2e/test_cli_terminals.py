"""What a person sees: narrow and wide terminals, no colour, a dumb terminal, a pipe that closes, after Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

from tests.support.patience import came_true
from tests.support.screen import BACKHAUL, Screen, backhaul, run_in_terminal, started
from tests.support.scripted_rest import UPLOAD_ID, Rows, scripted_rest, upload

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

COLOUR = "\x1b["


@pytest.fixture
def site(tmp_path: object) -> Iterator[tuple[str, Rows]]:
    """A control plane of a few rows."""
    with scripted_rest() as served:
        yield served


def shown(url: str, *words: str, columns: int = 80, env: Mapping[str, str] | None = None) -> Screen:
    """What a command draws in a terminal."""
    settings = {"BACKHAUL_URL": url, "XDG_CONFIG_HOME": "/nonexistent", **(env or {})}
    return run_in_terminal((*BACKHAUL, *words), columns=columns, env=settings, patience=60)


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("words", [("upload", "list"), ("client", "list"), ("upload", "show", UPLOAD_ID)])
def test_a_result_fits_the_terminal_and_every_id_is_whole(
    site: tuple[str, Rows], columns: int, words: tuple[str, ...]
) -> None:
    screen = shown(site[0], *words, columns=columns)
    assert screen.exit_code == 0, screen.text
    assert max(map(len, screen.text.splitlines())) <= columns
    # Facts fold an id at the edge, and lose no letter of it.
    letters = screen.text.replace("\n", "").replace(" ", "")
    assert (UPLOAD_ID if words[0] == "upload" else "restaurant-7") in letters
    assert "…/daily" in screen.text or words != ("upload", "list")


def test_a_narrow_terminal_gets_a_block_for_each_row(site: tuple[str, Rows]) -> None:
    site[1].uploads.append(upload("restaurant-1", "completed", upload_id="f" * 32))
    lines = [line.rstrip() for line in shown(site[0], "upload", "list", columns=40).text.splitlines()]
    assert f"upload  {UPLOAD_ID}" in lines
    assert "client  restaurant-7" in lines
    assert lines.count("") == 1


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"CLICOLOR": "0"}])
def test_no_colour_where_none_is_wanted(site: tuple[str, Rows], env: dict[str, str]) -> None:
    plain = shown(site[0], "client", "list", env=env)
    assert not re.search(r"\x1b\[[0-9;]*3\d", plain.drawn)
    assert "restaurant-7" in plain.text
    assert re.search(r"\x1b\[[0-9;]*3\d", shown(site[0], "client", "list").drawn)


def test_a_dumb_terminal_gets_no_table_that_moves(site: tuple[str, Rows]) -> None:
    url, rows = site
    with started((*BACKHAUL, "client", "list", "--server", url), {**os.environ, "TERM": "dumb"}) as process:
        out, _ = process.communicate(timeout=60)
    assert COLOUR not in out
    assert not shown(url, "client", "list", env={"TERM": "dumb"}).moved
    assert rows.requests


def test_the_c_locale_ends_no_command(site: tuple[str, Rows]) -> None:
    for env in ({"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}):
        screen = shown(site[0], "upload", "list", columns=120, env=env)
        assert screen.exit_code == 0, screen.text
        assert UPLOAD_ID in screen.text
    ascii_only = backhaul("upload", "list", "--server", site[0], env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert ascii_only.stdout.isascii()


def test_a_pipe_gets_whole_lines_without_colour_and_with_it_when_forced(site: tuple[str, Rows]) -> None:
    assert COLOUR not in backhaul("client", "list", "--server", site[0]).stdout
    forced = backhaul("client", "list", "--server", site[0], env={"CLICOLOR_FORCE": "1"})
    assert COLOUR in forced.stdout
    assert "\x1b[1A" not in forced.stdout + forced.stderr
    refused = backhaul("client", "list", "--server", site[0], env={"CLICOLOR_FORCE": "1", "NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*3\d", refused.stdout)


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "name", "table"])
def test_a_closed_pipe_ends_each_form_with_141(site: tuple[str, Rows], form: str) -> None:
    """PYTHONUNBUFFERED, too, which images of containers set."""
    site[1].uploads = [upload("restaurant-1", upload_id=f"{n:032}") for n in range(3_000)]
    shell = f"set -o pipefail; {' '.join(BACKHAUL)} upload list -n 3000 -o {form} --server {site[0]} | head -c 1; "
    for unbuffered in ("", "1"):
        ended = subprocess.run(
            ("bash", "-c", f"{shell} echo ${{PIPESTATUS[0]}} >&2"),
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.stderr.strip() == "141", unbuffered


def test_a_watched_list_prints_a_json_line_for_each_row_that_changes(site: tuple[str, Rows]) -> None:
    """Nothing is read without a change."""
    url, rows = site
    rows.uploads.append(upload("restaurant-1", "queued", upload_id="f" * 32))
    with started((*BACKHAUL, "upload", "list", "--watch", "--server", url)) as process:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [row["client_id"] for row in first] == ["restaurant-7", "restaurant-1"]
        assert came_true(lambda: bool(rows.streams), 30)
        rows.uploads = [rows.uploads[0], rows.uploads[1] | {"state": "in_progress"}]
        rows.tell("upload.state_changed", upload_id="f" * 32)
        changed = json.loads(process.stdout.readline())
        assert (changed["upload_id"], changed["state"]) == ("f" * 32, "in_progress")
        rows.uploads = rows.uploads[:1]
        rows.tell("upload.state_changed", upload_id="f" * 32)
        assert json.loads(process.stdout.readline()) == {"upload_id": "f" * 32, "removed": True}
        read = sum(path.startswith("/uploads") for _, path in rows.requests)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    # The beginning of the stream, and two changes.
    assert read <= 4


def test_a_watched_list_is_drawn_over_itself_on_a_terminal(site: tuple[str, Rows]) -> None:
    """Ctrl-C leaves the table, with 130."""
    command = (*BACKHAUL, "client", "list", "--watch", "--server", site[0])
    screen = run_in_terminal(command, columns=100, interrupt_at="restaurant-7", patience=60)
    assert screen.exit_code == 130
    assert "last heard" in screen.text


def test_an_upload_of_an_absent_client_is_explained(site: tuple[str, Rows]) -> None:
    """Since when it is away, until when the upload waits, and how to leave."""
    ended = backhaul("trigger", "restaurant-7", "--server", site[0])
    said = "restaurant-7 is offline since 2026-11-20 10:02Z; queued until 2026-11-27 10:02Z"
    assert said in ended.stderr
    command = (*BACKHAUL, "trigger", "restaurant-7", "--wait", "--timeout", "1s", "--server", site[0])
    waited = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert f"{said}; --no-wait to return now" in waited.stderr
    assert waited.returncode == 124
    assert "the upload is not over yet; it continues" in waited.stderr


def test_quiet_prints_the_result_alone(site: tuple[str, Rows]) -> None:
    ended = backhaul("trigger", "restaurant-7", "--quiet", "--server", site[0])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert UPLOAD_ID in ended.stdout


@pytest.mark.parametrize(("status", "code"), [(401, 4), (403, 4), (404, 1), (409, 1), (500, 1), (503, 1)])
def test_what_is_not_allowed_has_an_exit_code_of_its_own(site: tuple[str, Rows], status: int, code: int) -> None:
    site[1].problem = status
    assert backhaul("client", "list", "--server", site[0]).returncode == code


def test_a_person_is_asked_before_something_is_lost(site: tuple[str, Rows]) -> None:
    """On a terminal; a script is not asked, and `--no-input` wants `--yes`."""
    command = ("schedule", "rm", "every-day", "--server", site[0])
    asked = run_in_terminal((*BACKHAUL, *command), interrupt_at="[y/N]", patience=60)
    assert (asked.exit_code, "DELETE" in {method for method, _ in site[1].requests}) == (130, False)
    refused = backhaul(*command, "--no-input")
    assert refused.returncode == 2
    assert "add --yes" in refused.stderr
    assert site[1].requests == []
    for more in ((), ("--yes", "--no-input")):
        backhaul(*command, *more)
    assert [method for method, _ in site[1].requests] == ["DELETE", "DELETE"]


def test_top_draws_the_fleet_and_ends_with_ctrl_c_as_every_command(site: tuple[str, Rows]) -> None:
    settings = {"BACKHAUL_URL": site[0], "XDG_CONFIG_HOME": "/nonexistent"}
    screen = run_in_terminal((*BACKHAUL, "top"), env=settings, patience=60, interrupt_at="restaurant-7")
    assert screen.exit_code == 130, screen.text
    assert "uploads" in screen.text
    assert "\x1b[?1049l" in screen.drawn  # the screen from before is back


def test_top_without_colour_draws_none(site: tuple[str, Rows]) -> None:
    settings = {"BACKHAUL_URL": site[0], "XDG_CONFIG_HOME": "/nonexistent", "NO_COLOR": "1"}
    screen = run_in_terminal((*BACKHAUL, "top"), env=settings, patience=60, interrupt_at="restaurant-7")
    coloured = r"\x1b\[(?:[\d;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[\d;]*)?m"
    assert re.search(coloured, screen.drawn) is None


def test_top_needs_a_terminal_and_names_what_prints_to_a_pipe(site: tuple[str, Rows]) -> None:
    ended = backhaul("top", env={"BACKHAUL_URL": site[0], "XDG_CONFIG_HOME": "/nonexistent"})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "upload list --watch" in ended.stderr


def test_top_without_its_extra_names_the_line_that_installs_it(site: tuple[str, Rows]) -> None:
    start = "import sys; sys.modules['textual'] = None; from control_plane.cli.main import main; main()"
    command = (sys.executable, "-c", start, "top", "--server", site[0])
    screen = run_in_terminal(command, columns=200, env={"XDG_CONFIG_HOME": "/nonexistent"}, patience=60)
    assert screen.exit_code == 2
    assert "-m pip install 'backhaul[tui]'" in screen.text
