"""The event stream of a control plane, from the caller's side: `backhaul events`, and what wakes a command that waits.

Rule: a stream that ends is opened again after its last event. A control plane without a stream is older than this
program: a command that can do without it looks again and again, and prints so.
"""

import json
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, Self

import typer

from control_plane.cli.errors import CliError, Failed, Refused, Unavailable, Unreachable
from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.session import CliSession, Tree, rest_command

SETTLE: Final = 0.5
"""Seconds in which changes that follow one another are gathered."""

PAUSE: Final = 2.0
"""Seconds before a stream that ended is opened again."""

_NOT_FOUND: Final = 404
_FIELDS: Final = ("id", "event", "data", "retry", "")
_WITHOUT: Final = "this control plane has no event stream: it is older than this program"

Filters = Mapping[str, Sequence[str] | str]

Types = Annotated[
    list[str] | None, typer.Option("--type", "-t", metavar="TYPE", help="upload.state_changed, upload.*. Repeatable.")
]
Clients = Annotated[
    list[str] | None, typer.Option("--client", "-c", metavar="CLIENT", help="Of this client only. Repeatable.")
]
Jobs = Annotated[list[str] | None, typer.Option("--job", "-j", metavar="JOB", help="Of this job only. Repeatable.")]
Uploads = Annotated[
    list[str] | None,
    typer.Option("--upload", "-u", metavar="UPLOAD", help="Of this upload only, with its progress. Repeatable."),
]
Selector = Annotated[str | None, typer.Option("--selector", "-l", metavar="SELECTOR", help="Of clients with labels.")]
After = Annotated[
    str | None, typer.Option("--after", metavar="ID", help="Begin after this event; 0: with the oldest that is kept.")
]


class Event(NamedTuple):
    """One event; `id` is None for progress, `name` is "" for the beginning of a stream."""

    id: str | None
    name: str
    data: dict[str, Any]


class NoStream(Failed):
    """The control plane has no event stream."""


def register(app: Tree, panel: str) -> None:
    """Add the command of this module."""
    app.command("events", rich_help_panel=panel)(rest_command(events))


def events(
    session: CliSession,
    *,
    types: Types = None,
    client: Clients = None,
    job: Jobs = None,
    upload: Uploads = None,
    selector: Selector = None,
    after: After = None,
) -> None:
    """Print what changes as it changes, until Ctrl-C; a line for each event, with --json a document."""
    filters: dict[str, list[str] | str | None] = {
        "type": types,
        "client": client,
        "job": job,
        "upload": upload,
        "selector": selector,
    }
    with session.connect() as plane:
        for event in follow(plane, {name: value for name, value in filters.items() if value}, session, after):
            document = {"id": event.id, "type": event.name, **event.data}
            facts = " ".join(
                f"{name}={value}" for name, value in event.data.items() if name != "at" and value is not None
            )
            session.output.result(document, f"{event.data.get('at') or '-'} {event.name} {facts}")


def follow(plane: ControlPlane, filters: Filters, session: CliSession, after: str | None = None) -> Iterator[Event]:
    """The events, for ever; `NoStream`, or `Refused` for a wrong filter."""
    last, noted = after, False
    while True:
        try:
            for event in stream(plane, filters, last):
                last, noted = event.id or last, False
                if event.name:
                    yield event
        except (Unreachable, Unavailable) as error:
            if last is None:
                # It was never there.
                raise
            if not noted:
                session.output.note(f"trying again: {error}")
            noted = True
        time.sleep(PAUSE)


def stream(plane: ControlPlane, filters: Filters, last: str | None) -> Generator[Event, None, None]:
    """The events of one connection; `NoStream`, `Refused`, `Unreachable`."""
    headers = {} if last is None else {"Last-Event-ID": last}
    frame: dict[str, str] = {}
    try:
        for line in plane.lines("/events", filters, headers):
            name, _, value = line.rstrip("\r\n").partition(":")
            if name not in _FIELDS:
                # What answers is something else.
                raise NoStream(_WITHOUT)
            if name:
                frame[name] = value.removeprefix(" ")
            elif frame and not value:
                yield Event(frame.get("id"), frame.get("event", ""), json.loads(frame.get("data", "{}")))
                frame = {}
    except Refused as error:
        if error.problem.get("status") == _NOT_FOUND:
            raise NoStream(_WITHOUT) from error
        raise


class Wakes:
    """Sets `changed` whenever something that passes one of the filters changes, for a command that then reads it again.

    `missing` is True where there is no stream; then nothing is set any more. It is a context manager: it reads within.
    """

    def __init__(self, session: CliSession, *filters: Filters) -> None:
        self._session = session
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(one,), name="events", daemon=True) for one in filters or ({},)
        ]
        self._one_note = threading.Lock()
        self.changed = threading.Event()
        self.missing = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def start(self) -> None:
        """Begin to read."""
        for thread in self._threads:
            thread.start()

    def join(self, timeout: float) -> None:
        """Wait until there is nothing more to read, at most `timeout` s."""
        for thread in self._threads:
            thread.join(timeout)

    def wait(self, at_most: float, settle: float = SETTLE) -> bool:
        """Return soon after a change, or after `at_most` seconds; whether there was a change."""
        found = self.changed.wait(at_most)
        if found:
            # Changes that follow one another are one.
            time.sleep(min(settle, at_most))
        self.changed.clear()
        return found

    def _run(self, filters: Filters) -> None:
        """Read the stream until the block, or the program, ends."""
        last: str | None = None
        while not self._ended.is_set():
            try:
                with self._session.connect() as plane:
                    for event in stream(plane, filters, last):
                        last = event.id or last
                        self.changed.set()
                        if self._ended.is_set():
                            return
            except NoStream as error:
                with self._one_note:
                    if not self.missing:
                        self._session.output.note(f"{error}; looking again and again instead")
                    self.missing = True
                self.changed.set()
                return
            except CliError:
                # The command reads too, and shows why it cannot.
                pass
            self.changed.set()
            self._ended.wait(PAUSE)
