"""The results of a job as text: JSON lines, CSV, and download lists for curl and aria2.

Rule: pure. A list needs nothing of this project to be used. Text that comes from a device stays one value: it ends no
line, begins no formula of a spreadsheet, and leads out of no folder.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict, fields

from control_plane.domain.jobs.places import local_place, marked_place

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class ResultFormat(StrEnum):
    """How results are written."""

    JSONL = "jsonl"
    CSV = "csv"
    CURL = "curl"
    ARIA2 = "aria2"


MEDIA_TYPES: Final[Mapping[ResultFormat, str]] = {
    ResultFormat.JSONL: "application/x-ndjson",
    ResultFormat.CSV: "text/csv; charset=utf-8",
    ResultFormat.CURL: "text/plain; charset=utf-8",
    ResultFormat.ARIA2: "text/plain; charset=utf-8",
}
LISTS: Final = frozenset({ResultFormat.CURL, ResultFormat.ARIA2})
"""The formats with URLs: they hold proven files only."""


class ResultLine(Struct, frozen=True, kw_only=True):
    """What became of one file; or of an execution that has no file, then `path` is None.

    `outcome` is None while nothing is decided. `count` is 1, or how many files a line stands for: those that the
    device left out have no names. `bytes` are the object's, for a file without an object the file's. `attempts` are
    those of the execution. `digest` as in `domain.jobs.contents`. `after` is the `AfterOutcome` by now; None for a file
    that stays.
    """

    client_id: str
    path: str | None
    outcome: str | None
    reason_code: str | None = None
    reason: str | None = None
    count: int = 1
    bytes: int | None = None
    attempts: int = 1
    key: str | None = None
    digest: str | None = None
    upload_id: str | None = None
    after: str | None = None


def head_of(form: ResultFormat) -> str:
    """What precedes the first line."""
    match form:
        case ResultFormat.CSV:
            return _row(field.name for field in fields(ResultLine))
        case ResultFormat.CURL:
            return "# curl --parallel --fail --continue-at - --config FILE\ncreate-dirs\n"
        case ResultFormat.ARIA2:
            return "# aria2c --continue=true --input-file=FILE\n"
        case _:
            return ""


def jsonl(line: ResultLine) -> str:
    """One line of JSON."""
    return json.dumps(asdict(line), ensure_ascii=False, separators=(",", ":")) + "\n"


def csv_row(line: ResultLine) -> str:
    """One row. A text that a spreadsheet would take for a formula gets a `'` before it."""
    return _row(_shown(value) for value in asdict(line).values())


class DownloadList:
    """Entries of a download list. Two files of one place get different places: it remembers those that it gave."""

    def __init__(self, form: ResultFormat) -> None:
        self._form = form
        self._client = ""
        self._given: set[str] = set()

    def entry(self, line: ResultLine, url: str) -> str:
        """The entry of one proven file."""
        place = self.place(line.client_id, line.path or "")
        if self._form is ResultFormat.CURL:
            return f"url = {_quoted(url)}\noutput = {_quoted(place)}\n"
        check = line.digest or ""
        name, _, value = check.partition(":")
        checksum = f"  checksum={_ARIA2_NAMES[name]}={value}\n" if name in _ARIA2_NAMES else ""
        return f"{url}\n  out={place}\n{checksum}"

    def place(self, client_id: str, path: str) -> str:
        """The local place of the next file. Lines come by client, so the places of one client are remembered."""
        if client_id != self._client:
            self._client, self._given = client_id, set()
        place = plain = local_place(client_id, path)
        n = 2
        # Some file systems do not distinguish capitals.
        while place.casefold() in self._given:
            place, n = marked_place(plain, n), n + 1
        self._given.add(place.casefold())
        return place


_ARIA2_NAMES: Final = {"md5": "md5", "sha256": "sha-256"}


def _row(values: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(list(values))
    return text.getvalue()


def _shown(value: Any) -> str:  # noqa: ANN401 - a member of ResultLine
    text = "" if value is None else str(value)
    text = "".join(letter if letter.isprintable() else "_" for letter in text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _quoted(text: str) -> str:
    """A quoted value of curl's configuration file."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
