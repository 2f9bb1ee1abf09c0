"""Following uploads until they end: bars on a terminal, a line for each change elsewhere.

Rule: a control plane that is unavailable for a while does not end the command; the uploads continue meanwhile.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Column
from rich.text import Text

from control_plane.cli.errors import TimedOut, Unavailable, Unreachable
from control_plane.cli.output import CliOutput
from control_plane.cli.text import instant, size, visible
from control_plane.domain.reasons import ReasonCode

Document = dict[str, Any]
Read = Callable[[str], Document]

ENDED: Final = frozenset({"completed", "failed", "cancelled"})
"""The values of REST's `status` that are final."""

POLL: Final = 0.25
"""Seconds between two readings of a control plane that pushes nothing."""

LONGEST_SILENCE: Final = 15.0
"""Seconds after which uploads are read again though nothing was pushed: a proxy may hold events back."""

PATIENCE: Final = 120.0
"""Seconds for which a control plane may be unavailable while its uploads are followed."""

_LONGEST_PAUSE: Final = 10.0
_STEP: Final = 25.0
_CELLS: Final = ("{task.description}", "{task.fields[size]}", "{task.fields[state]}")
_MOVING: Final = frozenset({"dispatched", "in_progress", "completing"})

_UNREMARKABLE: Final = frozenset(
    {ReasonCode.DISPATCHING, ReasonCode.AWAITING_RESPONSE, ReasonCode.UPLOADING, ReasonCode.COMPLETING}
)
"""Reasons of an upload that makes progress: the bar shows it, a sentence would repeat it."""


class Display(Protocol):
    """Shows the progress of uploads."""

    def show(self, upload: Document) -> None:
        """Show the present state of one upload."""

    def note(self, text: str | None) -> None:
        """Show a line about all uploads; None removes it."""


class Wakeful(Protocol):
    """The events of a control plane, as `cli.rest.events` reads them."""

    missing: bool
    """Whether it has no event stream."""

    def wait(self, at_most: float) -> bool:
        """Return after a change, or after `at_most` seconds."""


def follow(
    read: Read,
    upload_ids: Sequence[str],
    display: Display,
    *,
    wakes: Wakeful | None = None,
    timeout: float | None = None,
) -> list[Document]:
    """Show the uploads until each has ended, and return them in the order of `upload_ids`.

    They are read again when something wakes, without `wakes` again and again. `TimedOut` after `timeout` seconds;
    `Unreachable` or `Unavailable` when `read` gets no answer of the control plane for `PATIENCE` seconds.
    """
    known: dict[str, Document] = {}
    until = None if timeout is None else time.monotonic() + timeout
    while open_ids := [one for one in upload_ids if known.get(one, {}).get("status") not in ENDED]:
        for upload_id in open_ids:
            known[upload_id] = read_patiently(read, upload_id, display)
            display.show(known[upload_id])
        if any(known[one]["status"] not in ENDED for one in open_ids):
            left = LONGEST_SILENCE if until is None else until - time.monotonic()
            if left <= 0:
                text = "the upload is not over yet; it continues"
                raise TimedOut(text)
            rest(wakes, left, POLL)
    return [known[upload_id] for upload_id in upload_ids]


def rest(wakes: Wakeful | None, left: float, poll: float) -> None:
    """Return when it is worth to read again, after `left` seconds at the latest; without `wakes` after `poll`."""
    if wakes is None or wakes.missing:
        time.sleep(min(left, poll))
    else:
        wakes.wait(min(left, LONGEST_SILENCE))


def read_patiently(read: Read, upload_id: str, display: Display) -> Document:
    """The upload, once it can be read; `Unreachable` or `Unavailable` after `PATIENCE` seconds without an answer."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            document = read(upload_id)
        except (Unreachable, Unavailable) as error:
            if time.monotonic() > until:
                raise
            display.note(f"trying again: {error}")
            wait = error.retry_after if isinstance(error, Unavailable) else None
            time.sleep(min(max(wait or 0.0, 1.0), _LONGEST_PAUSE))
        else:
            display.note(None)
            return document


@contextmanager
def display_for(output: CliOutput) -> Iterator[Display]:
    """Bars where they can be drawn, else lines; both on standard error."""
    if not output.live:
        yield Lines(output)
        return
    bars = Bars()
    with Live(get_renderable=bars.renderable, console=output.stderr, refresh_per_second=8, transient=False):
        yield bars


class Lines:
    """One line for each change of state, reason or quarter."""

    def __init__(self, output: CliOutput) -> None:
        self._output = output
        self._shown: dict[str, tuple[object, ...]] = {}
        self._noted: str | None = None

    def show(self, upload: Document) -> None:
        """Print a line if state, reason or quarter changed."""
        quarter = float(upload.get("progress") or 0) // _STEP
        facts = (upload.get("state"), waiting_reason(upload), quarter)
        if self._shown.get(upload["upload_id"]) != facts:
            self._shown[upload["upload_id"]] = facts
            self._output.note(line(upload))

    def note(self, text: str | None) -> None:
        """Print it unless it is the last note."""
        if text and text != self._noted:
            self._output.note(text)
        self._noted = text


class Bars:
    """A bar for each upload, and below the bars the reasons why uploads wait."""

    def __init__(self) -> None:
        whole = [TextColumn(text, markup=False, table_column=Column(no_wrap=True)) for text in _CELLS]
        self._progress = Progress(whole[0], BarColumn(bar_width=None), TaskProgressColumn(), *whole[1:], expand=True)
        self._tasks: dict[str, TaskID] = {}
        self._waits: dict[str, str] = {}
        self._note: str | None = None

    def renderable(self) -> Group:
        """Bars and lines as they are now."""
        lines = [*self._waits.values(), *filter(None, [self._note])]
        return Group(self._progress, *(Text(f"  {text}", style="dim", overflow="fold") for text in lines))

    def show(self, upload: Document) -> None:
        """Update the bar."""
        upload_id = upload["upload_id"]
        if upload_id not in self._tasks:
            self._tasks[upload_id] = self._progress.add_task(_name(upload), total=None, size="", state="")
        self._progress.update(
            self._tasks[upload_id],
            description=_name(upload),
            completed=_sent(upload),
            total=upload.get("file_size") or (1 if upload.get("status") in ENDED else None),
            size=size(upload.get("file_size")),
            state=_state_text(upload),
        )
        self._waits.pop(upload_id, None)
        if (why := waiting_reason(upload)) and upload.get("status") not in ENDED:
            self._waits[upload_id] = f"{_name(upload)}: {why}"

    def note(self, text: str | None) -> None:
        """Show it below the bars."""
        self._note = text


def line(upload: Document) -> str:
    """The progress of one upload, as a line."""
    whole = upload.get("file_size")
    sent = None if whole is None else f"{size(upload.get('bytes_uploaded') or 0)} of {size(whole)}"
    parts = [_name(upload), _state_text(upload), sent]
    return "  ".join(filter(None, (*parts, waiting_reason(upload))))


def waiting_reason(upload: Document) -> str | None:
    """Why the upload waits and when the next try is, or its error; None while it makes progress."""
    error = ": ".join(str(part) for part in (upload.get("error"), upload.get("message")) if part)
    reason = upload.get("reason") or {}
    why = error or (None if reason.get("code") in _UNREMARKABLE else reason.get("text"))
    if not why:
        return None
    at = None if upload.get("state") in _MOVING else instant(reason.get("next_wake_at"))
    until = f", next try {at:%H:%M:%SZ}" if at and at > datetime.now(UTC) else ""
    return visible(why) + until


def failures(uploads: Iterable[Document]) -> list[Document]:
    """Those that did not complete."""
    return [upload for upload in uploads if upload.get("status") != "completed"]


def _name(upload: Document) -> str:
    file = str(upload.get("file_path") or "").rpartition("/")[2]
    return visible(f"{upload.get('client_id', '')} {file}".strip())


def _state_text(upload: Document) -> str:
    proof = upload.get("proof")
    return f"proven by {proof}" if proof else visible(upload.get("state") or upload.get("status") or "")


def _sent(upload: Document) -> float:
    """Bytes for the bar; an empty file's bar is full when it is done."""
    if upload.get("status") == "completed":
        return upload.get("file_size") or 1
    return upload.get("bytes_uploaded") or 0
