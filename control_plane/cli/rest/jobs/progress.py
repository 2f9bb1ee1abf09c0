"""Following a job until it ends: a bar on a terminal, a line for each change elsewhere.

Rule: a control plane that is unavailable for a while does not end the command; the job continues meanwhile.
"""

import time
from collections.abc import Callable
from typing import Final

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from control_plane.cli.errors import DONE, PARTIAL, Failed, TimedOut, Unavailable, Unreachable
from control_plane.cli.output import CliOutput
from control_plane.cli.rest.client import Document
from control_plane.cli.rest.jobs.tables import ended, line
from control_plane.cli.rest.progress import LONGEST_SILENCE, PATIENCE, Wakeful, rest

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 5.0
OVER: Final = frozenset({"completed", "cancelled", "aborted", "expired"})
_OUTCOMES: Final = {"all": DONE, "partial": PARTIAL, "none": Failed.exit_code}


def follow(
    read: Callable[[], Document],
    output: CliOutput,
    timeout: float | None,
    wakes: Wakeful | None = None,
) -> Document:
    """Show the job until it is over, and return it; `TimedOut` after `timeout` seconds.

    It is read again when something wakes, without `wakes` again and again.
    `Unreachable` or `Unavailable` when the control plane gives no answer for `PATIENCE` seconds.
    """
    until = None if timeout is None else time.monotonic() + timeout
    if not output.live:
        shown: list[str] = []

        def note(text: str) -> None:
            if text not in shown[-1:]:
                shown.append(text)
                output.note(text)

        return _followed(read, until, wakes, show=lambda job: note(line(job)), note=note)
    bar = _Bar()
    with Live(get_renderable=bar.renderable, console=output.stderr, refresh_per_second=8, transient=False):
        return _followed(read, until, wakes, show=bar.show, note=bar.note)


def exit_code(job: Document) -> int:
    """0 when every execution succeeded or had nothing to send, 5 when some did, 1 when none did."""
    return _OUTCOMES.get(str(job.get("outcome")), Failed.exit_code)


def _followed(
    read: Callable[[], Document],
    until: float | None,
    wakes: Wakeful | None,
    *,
    show: Callable[[Document], None],
    note: Callable[[str], None],
) -> Document:
    longest, heard_at = FIRST_PAUSE, time.monotonic()
    before: Document | None = None
    while True:
        try:
            job = read()
        except (Unreachable, Unavailable) as error:
            if time.monotonic() > heard_at + PATIENCE:
                raise
            note(f"trying again: {error}")
            longest = max(longest, 1.0)
        else:
            heard_at = time.monotonic()
            show(job)
            if job.get("state") in OVER:
                return job
            # A job of many clients changes for hours: it is read less often while nothing happens.
            longest = FIRST_PAUSE if job != before else min(longest * 1.5, LONGEST_PAUSE)
            before = job
        left = LONGEST_SILENCE if until is None else until - time.monotonic()
        if left <= 0:
            text = "the job is not over yet; it continues"
            raise TimedOut(text)
        rest(wakes, left, longest)


class _Bar:
    """A bar over the executions, with a line about the job below it."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            expand=True,
        )
        self._task = self._progress.add_task("", total=None)
        self._line = ""

    def renderable(self) -> Group:
        """The bar and the line as they are now."""
        return Group(self._progress, Text(f"  {self._line}", style="dim", overflow="fold"))

    def show(self, job: Document) -> None:
        """Update the bar."""
        self._progress.update(
            self._task, description=str(job.get("job_id")), completed=ended(job), total=job.get("clients") or None
        )
        self._line = line(job)

    def note(self, text: str) -> None:
        """Show it below the bar."""
        self._line = text
