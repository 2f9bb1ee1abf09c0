"""What `backhaul top` reads from a control plane, and when: REST for the rows, `GET /events` for when they change.

Rule: nothing is read without a change or a key, and at most one request a second follows changes. Threads of the feed
call `changed` after each change of `pages`; they end with the feed.
"""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from control_plane.cli.errors import CliError, Misused
from control_plane.cli.rest.client import ControlPlane, segment
from control_plane.cli.rest.events import Event, NoStream, stream
from control_plane.cli.rest.jobs.calls import JobCalls
from control_plane.cli.rest.watching import BUSY
from control_plane.cli.text import visible
from control_plane.cli.top.model import ID, MOST, Following, Listed, Row, Tab, Verb, key_of, parse, progressed, touched

PAUSE: Final = 2.0
"""Seconds before a lost stream is opened again; the jitter makes it half to one and a half times as long."""

LONGEST_PAUSE: Final = 30.0

TYPES: Final = ("upload.*", "job.*", "execution.*", "client.*")

Connect = Callable[[], ControlPlane]


class Feed:
    """The lists of one control plane, kept up to date for the tab that is looked at.

    `changed` is called in a thread of the feed. `opened` is the row whose details are looked at.
    """

    def __init__(self, connect: Connect, changed: Callable[[], None]) -> None:
        self._connect = connect
        self._changed = changed
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._stale = set(Tab)
        self._stale_opened = False
        self._opened_problem: str | None = None
        self._openings = 0
        self._tab = Tab.UPLOADS
        self.pages: dict[Tab, Listed] = {tab: Listed() for tab in Tab}
        self.opened: tuple[Tab, Row] | None = None
        self.stream = Following.CONNECTING
        self.trouble: str | None = None

    @property
    def opened_problem(self) -> str | None:
        """Why the details cannot be read, if so."""
        return self._opened_problem

    @property
    def waits(self) -> bool:
        """Whether something that is looked at has changed and is not read yet."""
        return self._stale_opened or self._tab in self._stale

    def start(self) -> None:
        """Begin to read."""
        for work in (self._read_changes, self._read_rows):
            threading.Thread(target=work, name="top", daemon=True).start()

    def stop(self) -> None:
        """Read nothing more."""
        self._ended.set()
        self._wake.set()

    def look_at(self, tab: Tab) -> None:
        """Keep this list up to date."""
        self._tab = tab
        self._wake.set()

    def narrow(self, tab: Tab, typed: str) -> None:
        """Show only what passes a filter; `Misused` for one without a meaning."""
        wanted = parse(tab, typed)
        with self._lock:
            page = self.pages[tab]
            asks_anew = wanted.asked != page.filter.asked
            self.pages[tab] = replace(page, filter=wanted, typed=typed, read=page.read and not asks_anew)
            if asks_anew:
                self._stale.add(tab)
        self._wake.set()

    def open(self, tab: Tab, row: Row) -> None:
        """Keep the details of this row up to date until `close`."""
        with self._lock:
            self.opened, self._opened_problem, self._stale_opened = (tab, row), None, True
            self._openings += 1
            opening = self._openings
        if tab is Tab.UPLOADS and not row.get("completed_at"):
            threading.Thread(target=self._read_progress, args=(row, opening), name="top", daemon=True).start()
        self._wake.set()

    def close(self) -> None:
        """The details are not looked at any more."""
        with self._lock:
            self.opened = None

    def act(self, tab: Tab, verb: Verb, row: Row) -> None:
        """Do it, as of the version that was shown; `CliError`. What it changed is read at once."""
        with self._connect() as plane:
            if tab is Tab.UPLOADS:
                act = plane.cancel if verb is Verb.CANCEL else plane.retry
                act(str(row["upload_id"]), str(row["client_id"]))
            else:
                _act_on_job(JobCalls(plane), verb, row)
        self._mark({tab})

    def _mark(self, tabs: "set[Tab] | frozenset[Tab]") -> None:
        with self._lock:
            self._stale |= tabs
            self._stale_opened = self._stale_opened or (self.opened is not None and self.opened[0] in tabs)
        self._wake.set()

    # --- changes

    def _read_changes(self) -> None:
        last: str | None = None
        failures = 0
        while not self._ended.is_set():
            try:
                with self._connect() as plane:
                    for event in stream(plane, {"type": TYPES}, last):
                        if self._ended.is_set():
                            return
                        failures = 0
                        self._follow(event, resumed=last is not None)
                        last = event.id or last
                # The server ends each stream after an hour, and when it stops.
                self._state(Following.LOST, "the control plane ended it")
            except NoStream as error:
                self._state(Following.LOST, str(error))
            except CliError as error:
                self._state(Following.LOST, visible(error))
            failures += 1
            longest = min(LONGEST_PAUSE, PAUSE * 2.0 ** (failures - 1))
            self._ended.wait(longest * random.uniform(0.5, 1.5))  # noqa: S311 - it spreads callers, it keeps no secret

    def _follow(self, event: Event, *, resumed: bool) -> None:
        if self.stream is not Following.LIVE:
            self._state(Following.LIVE)
        # A stream that is resumed brings what was missed; a list that could not be read is read all the same.
        tabs = touched(event.name)
        if not event.name and resumed:
            tabs = frozenset(tab for tab, page in self.pages.items() if page.problem)
        if tabs:
            self._mark(tabs)

    def _state(self, state: Following, trouble: str | None = None) -> None:
        self.stream, self.trouble = state, trouble
        self._changed()

    # --- rows

    def _read_rows(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            if not self._read_one():
                self._wake.wait()
                self._wake.clear()
                continue
            self._changed()
            self._ended.wait(max(0.0, BUSY - (time.monotonic() - began)))

    def _read_one(self) -> bool:
        """One request for what is looked at and has changed; whether there was anything to read."""
        with self._lock:
            opened = self.opened if self._stale_opened else None
            tab = self._tab if opened is None and self._tab in self._stale else None
            if opened is not None:
                self._stale_opened = False
            elif tab is not None:
                self._stale.discard(tab)
        if opened is not None:
            self._read_details(*opened)
        elif tab is not None:
            self._read_page(tab)
        return opened is not None or tab is not None

    def _read_page(self, tab: Tab) -> None:
        asked = self.pages[tab].filter.asked
        rows: list[Row] = []
        cut, problem = False, None
        try:
            with self._connect() as plane:
                answer = plane.call("GET", f"/{tab}", params={"limit": MOST, **asked})
            rows, cut = list(answer[str(tab)])[:MOST], bool(answer.get("cursor"))
        except CliError as error:
            problem = visible(error)
        with self._lock:
            page = self.pages[tab]
            if page.filter.asked == asked:
                known = page.rows if problem else rows
                self.pages[tab] = replace(
                    page, rows=known, cut=page.cut if problem else cut, read=True, problem=problem
                )

    def _read_details(self, tab: Tab, row: Row) -> None:
        name = segment(str(row[ID[tab]]))
        params = {"client_id": str(row["client_id"])} if tab is Tab.UPLOADS else {}
        found = row
        problem: str | None = None
        try:
            with self._connect() as plane:
                found = plane.call("GET", f"/{tab}/{name}", params=params)
        except CliError as error:
            problem = visible(error)
        with self._lock:
            # Another row may have been opened meanwhile.
            if self.opened is not None and self.opened[0] is tab and key_of(tab, self.opened[1]) == key_of(tab, row):
                self._opened_problem = problem
                if problem is None:
                    self.opened = (tab, found)

    def _read_progress(self, row: Row, opening: int) -> None:
        """What one upload sends, until its details are closed."""
        filters = {"upload": str(row["upload_id"]), "client": str(row["client_id"])}
        with suppress(CliError), self._connect() as plane:
            for event in stream(plane, filters, None):
                if self._ended.is_set() or self.opened is None or self._openings != opening:
                    return
                if event.name == "upload.progress":
                    self._show_progress(event.data)

    def _show_progress(self, facts: Row) -> None:
        with self._lock:
            page = self.pages[Tab.UPLOADS]
            self.pages[Tab.UPLOADS] = replace(page, rows=progressed(page.rows, facts))
            if self.opened is not None:
                self.opened = (self.opened[0], progressed([self.opened[1]], facts)[0])
        self._changed()


def _act_on_job(jobs: JobCalls, verb: Verb, row: Row) -> None:
    job_id, version = str(row["job_id"]), int(row["version"])
    if verb is not Verb.RETRY:
        jobs.verb(job_id, str(verb), None, version)
        return
    states = ["failed", "timed_out", "partial"]
    found = jobs.executions(job_id, 1, state=states)
    if not found["count"]:
        text = "nothing of it failed, timed out or is partial"
        raise Misused(text)
    where = {"state": states, "clients": [], "count": found["count"], "set": found["set"]}
    jobs.verb(job_id, "retry", {"where": where}, version)
