"""What `backhaul top` shows: lists, a filter, and what a key may do to a row.

Rule: pure; it does no IO. Text of a device passes `visible` before it is in a cell.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.console import RenderableType
from rich.text import Text

from control_plane.cli.errors import Misused
from control_plane.cli.layout import dash
from control_plane.cli.rest.jobs import tables as job_tables
from control_plane.cli.rest.progress import ENDED
from control_plane.cli.rest.tables import done, labels, reason_code, state_text, upload_view, whole_client_view
from control_plane.cli.text import ago, size, visible

Row = Mapping[str, Any]

MOST: Final = 100
"""Rows that a list shows; beyond them it is cut."""


class Tab(StrEnum):
    """The lists, in the order of their tabs."""

    UPLOADS = "uploads"
    JOBS = "jobs"
    CLIENTS = "clients"


class Verb(StrEnum):
    """What a key does to the row under the cursor."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"


class Following(StrEnum):
    """Whether changes arrive."""

    CONNECTING = "connecting"
    LIVE = "live"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a column. `least` and `most` are its width in cells; the last column gets what is left.

    A text that is too long keeps its beginning, or with `keeps_end` its end.
    """

    title: str
    least: int
    most: int
    value: Callable[[Row, datetime], object]
    keeps_end: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """`asked` goes to REST as parameters, `words` must all be in a row that was read."""

    asked: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()

    def passes(self, cells: Sequence[str]) -> bool:
        """Whether a row of these cells is shown."""
        whole = " ".join(cells).casefold()
        return all(word in whole for word in self.words)


@dataclass(frozen=True, slots=True)
class Shown:
    """A list as it is drawn: `keys` and `cells` are parallel; `widths` are those of the columns, in cells."""

    keys: Sequence[str]
    cells: Sequence[Sequence[Text]]
    widths: Sequence[int]


@dataclass(slots=True)
class Listed:
    """One list as it was read last. `cut`: the control plane has more rows. `problem` is why it could not be read."""

    rows: Sequence[Row] = ()
    cut: bool = False
    read: bool = False
    problem: str | None = None
    filter: Filter = field(default_factory=Filter)
    typed: str = ""


FILTERS: Final[Mapping[Tab, Mapping[str, str]]] = {
    Tab.UPLOADS: {"client": "client_id", "status": "status", "state": "state", "error": "error", "job": "job_id",
                  "reason": "reason_code"},
    Tab.JOBS: {"state": "state", "schedule": "schedule_id"},
    Tab.CLIENTS: {"id": "id", "selector": "selector", "state": "state"},
}  # fmt: skip
"""The names before `=` that a filter sends to REST, with the names of the parameters."""

ID: Final[Mapping[Tab, str]] = {Tab.UPLOADS: "upload_id", Tab.JOBS: "job_id", Tab.CLIENTS: "client_id"}
"""The member of a row that has its id."""

_FAMILIES: Final[Mapping[str, frozenset[Tab]]] = {
    "upload": frozenset({Tab.UPLOADS}),
    "job": frozenset({Tab.JOBS}),
    "execution": frozenset({Tab.JOBS}),
    # A client that comes or goes changes what its uploads wait for.
    "client": frozenset({Tab.CLIENTS, Tab.UPLOADS}),
}
_FACTS: Final = ("state", "progress", "bytes_uploaded", "file_size", "completed_parts", "total_parts")
_GAP: Final = 2
"""Cells that a table adds to each column."""

_COLUMNS: Final[Mapping[Tab, tuple[Head, ...]]] = {
    Tab.UPLOADS: (
        Head("client", 14, 32, lambda row, _: row.get("client_id")),
        Head("state", 11, 11, lambda row, _: state_text(row)),
        Head("done", 4, 4, lambda row, _: done(row)),
        Head("size", 9, 9, lambda row, _: size(row.get("file_size"))),
        Head("why", 14, 28, lambda row, _: row.get("error") or reason_code(row)),
        Head("file", 14, 400, lambda row, _: row.get("file_path"), keeps_end=True),
    ),
    Tab.JOBS: (
        Head("job", 8, 36, lambda row, _: row.get("job_id")),
        Head("state", 9, 20, lambda row, _: job_tables.state(row)),
        Head("ended", 7, 13, lambda row, _: f"{job_tables.ended(row)}/{row.get('clients', '-')}"),
        Head("sent", 9, 10, lambda row, _: size((row.get("totals") or {}).get("proven_bytes"))),
        Head("created", 8, 10, lambda row, now: ago(row.get("created_at"), now)),
        Head("why", 10, 400, lambda row, _: None if row.get("ended_at") else job_tables.why(row)),
    ),
    Tab.CLIENTS: (
        Head("client", 6, 40, lambda row, _: row.get("client_id")),
        Head("state", 10, 12, lambda row, _: _presence(row)),
        Head("last heard", 10, 12, lambda row, now: ago(row.get("last_activity"), now)),
        Head("why", 6, 30, lambda row, _: reason_code(row)),
        Head("labels", 10, 400, lambda row, _: labels(row.get("labels"))),
    ),
}


def columns(tab: Tab) -> tuple[Head, ...]:
    """The columns of a list."""
    return _COLUMNS[tab]


def key_of(tab: Tab, row: Row) -> str:
    """What names a row among those of its list. An id of an upload is unique for its client only."""
    return f"{row.get(ID[tab])}\n{row.get('client_id') if tab is Tab.UPLOADS else ''}"


def title_of(tab: Tab, row: Row) -> str:
    """The row for a person: `upload 0123… of restaurant-1`."""
    name = visible(row.get(ID[tab]))
    return f"upload {name} of {visible(row.get('client_id'))}" if tab is Tab.UPLOADS else f"{tab[:-1]} {name}"


def details(tab: Tab, row: Row, now: datetime) -> RenderableType:
    """Everything about one row."""
    match tab:
        case Tab.UPLOADS:
            return upload_view(row)
        case Tab.JOBS:
            return job_tables.job_view(row)
        case Tab.CLIENTS:
            return whole_client_view(row, now)


def parse(tab: Tab, text: str) -> Filter:
    """A filter as it is typed: `state=failed sales`; `Misused` for one that has no meaning."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Misused(f"the filter cannot be read: {str(error).lower()}") from error  # noqa: EM102, TRY003
    known = FILTERS[tab]
    asked: dict[str, str] = {}
    plain: list[str] = []
    for word in words:
        name, is_pair, value = word.partition("=")
        if is_pair and name in known and value:
            asked[known[name]] = value
        else:
            plain.append(word.casefold())
    return Filter(asked, tuple(plain))


def shown(tab: Tab, page: Listed, width: int, now: datetime) -> Shown:
    """The rows that pass the filter, in `width` cells: what does not fit ends with `…`."""
    heads = columns(tab)
    keys: list[str] = []
    cells: list[list[Text]] = []
    for row in page.rows:
        line = [_cell(head.value(row, now)) for head in heads]
        whole = [text.plain for text in line]
        if page.filter.passes([*whole, visible(row.get(ID[tab]))]):
            keys.append(key_of(tab, row))
            cells.append(line)
    widths = _widths(heads, cells, width)
    fitted = [[_cut(*one) for one in zip(line, widths, heads, strict=True)] for line in cells]
    return Shown(keys, fitted, widths)


def summary(tab: Tab, page: Listed, count: int) -> str:
    """How many rows there are, and whether there are more. `count` rows pass the filter."""
    if page.problem:
        return page.problem
    if not page.read:
        return "reading…"
    if not page.rows:
        return f"no {tab} match" if page.typed else f"no {tab} yet"
    text = f"{count} {tab}" if count == len(page.rows) else f"{count} of the {len(page.rows)} {tab} that were read"
    newest = "first" if tab is Tab.CLIENTS else "newest"
    names = ", ".join(f"{name}=" for name in FILTERS[tab])
    return f"{text}; only the {newest} {MOST} are read: / with {names} asks for others" if page.cut else text


def touched(event: str) -> frozenset[Tab]:
    """The lists that an event of this type changes; all of them for `resync` and for the beginning of a stream."""
    family = event.partition(".")[0]
    return frozenset(Tab) if event in ("", "resync") else _FAMILIES.get(family, frozenset())


def verb_of(tab: Tab, key: str, row: Row) -> Verb:
    """What the key `p`, `c` or `r` does to this row; `Misused` explains why it does nothing."""
    over = row.get("status") in ENDED if tab is Tab.UPLOADS else bool(row.get("ended_at"))
    state = visible(row.get("state"))
    problem: str | None
    match tab, key:
        case Tab.CLIENTS, _:
            verb, problem = Verb.CANCEL, "a client has nothing to pause, cancel or retry: choose an upload or a job"
        case Tab.UPLOADS, "p":
            verb, problem = Verb.PAUSE, "an upload cannot be paused: pause its job, or cancel it"
        case Tab.JOBS, "p":
            paused = row.get("state") == "paused"
            verb = Verb.RESUME if paused else Verb.PAUSE
            problem = f"the job is over ({state})" if over else None
        case _, "c":
            verb, problem = Verb.CANCEL, f"it is over already ({state})" if over else None
        case _:
            waits = tab is Tab.UPLOADS and not over
            verb, problem = Verb.RETRY, f"only what is over can be tried again; this is {state}" if waits else None
    if problem:
        raise Misused(problem)
    return verb


def question(tab: Tab, verb: Verb, row: Row) -> str:
    """What is asked before it is done."""
    after = {
        (Tab.UPLOADS, Verb.CANCEL): "What was sent of it is removed.",
        (Tab.UPLOADS, Verb.RETRY): "A new upload of the same file begins.",
        (Tab.JOBS, Verb.PAUSE): "It begins nothing more; its deadline keeps running.",
        (Tab.JOBS, Verb.RESUME): "It continues where it was paused.",
        (Tab.JOBS, Verb.CANCEL): "Its open uploads are cancelled too.",
        (Tab.JOBS, Verb.RETRY): "What failed, timed out or is partial is queued again.",
    }
    return f"{verb.capitalize()} {title_of(tab, row)}? {after.get((tab, verb), '')}".rstrip()


def progressed(rows: Sequence[Row], facts: Row) -> Sequence[Row]:
    """The rows with what an `upload.progress` reports of one of them."""
    key = key_of(Tab.UPLOADS, facts)
    changes = {name: facts[name] for name in _FACTS if name in facts}
    return [{**row, **changes} if key_of(Tab.UPLOADS, row) == key else row for row in rows]


def _presence(row: Row) -> Text:
    if row.get("connected"):
        return Text("connected", style="green")
    return Text(visible(row.get("state") or "offline"), style="yellow")


def _cell(value: object) -> Text:
    return value if isinstance(value, Text) else Text(dash(value))


def _widths(heads: Sequence[Head], cells: Sequence[Sequence[Text]], width: int) -> list[int]:
    """The widths of the columns: as wide as their cells, then narrower from the widest on, until they fit."""
    gaps = _GAP * len(heads)
    widths = []
    for at, head in enumerate(heads):
        longest = max((cell_len(line[at].plain) for line in cells), default=0)
        widths.append(max(head.least, len(head.title), min(head.most, longest)))
    while sum(widths) + gaps > width:
        slack = [wide - head.least for wide, head in zip(widths, heads, strict=True)]
        widest = max(range(len(widths)), key=slack.__getitem__)
        if slack[widest] <= 0:
            break
        widths[widest] -= 1
    widths[-1] = max(widths[-1], width - gaps - sum(widths[:-1]))
    return widths


def _cut(text: Text, most: int, head: Head) -> Text:
    plain = text.plain
    if cell_len(plain) <= most:
        return text
    if head.keeps_end:
        end = set_cell_size(plain[::-1], most - 1).rstrip()[::-1]
        return Text(f"…{end}", style=text.style)
    return Text(f"{set_cell_size(plain, most - 1).rstrip()}…", style=text.style)
