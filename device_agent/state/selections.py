"""The selections that are kept: one file each in the state folder, so that pages outlive a restart of the agent.

Rule: a file is whole or absent, and never changed. The latest 16 are kept, for 24 hours; what is gone, too old or
damaged is absent. No record of the journal depends on them: a selection that is gone is made again.

The first line of a file is the answer without entries, each further line one entry, in the order of the selection.
"""

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from device_agent.state.atomic_file import PRIVATE_FOLDER, replace_file
from schemas.codec import GRANT_FILL_SIZE
from schemas.messages import FileEntry, Selection

MAX_KEPT: Final = 16
MAX_AGE: Final = 24 * 3600.0
"""Seconds, on the clock of the file system."""

_ENVELOPE: Final = 1024
"""Bytes of an answer beside its entries."""

_CHUNK: Final = 500
"""Lines that are written together."""

log = logging.getLogger(__name__)
_encoder: Final = msgspec.json.Encoder()
_head: Final = msgspec.json.Decoder(Selection)
_entry: Final = msgspec.json.Decoder(FileEntry)


class KeptSelections:
    """The selections in one folder, which is made when the first one is kept.

    One thread may keep while others read.
    """

    def __init__(self, folder: Path, *, wall: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._wall = wall

    def keep(self, selection: str, head: Selection, entries: Iterable[FileEntry], scope: str = "") -> None:
        """Keep a selection, and drop the oldest ones; `OSError` when the disk does not take it.

        It is found with the same `scope` alone (letters and digits, or empty).
        """
        self._folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        # First, so that a full disk gets room.
        self._drop(MAX_KEPT - 1)
        replace_file(self._path(selection, scope), _lines(head, entries))

    def page(self, selection: str, offset: int, limit: int, scope: str = "") -> Selection | None:
        """The page from `offset`, of at most `limit` entries and 96 KiB; None for a selection that is not kept."""
        path = self._path(selection, scope)
        try:
            with path.open("rb") as lines:
                found = _head.decode(next(lines, b""))
                kept = found.files - found.left_out
                if self._is_old(path) or found.selection != selection:
                    return None
                some = list(itertools.islice(lines, offset, offset + limit))
        except (OSError, ValueError):
            return None
        if len(some) != max(0, min(limit, kept - offset)):
            log.warning("the file of selection %s is damaged: it is made again", selection)
            return None
        sizes = itertools.accumulate(len(line) for line in some)
        fitting = [line for line, end in zip(some, sizes, strict=True) if end <= GRANT_FILL_SIZE - _ENVELOPE]
        try:
            entries = tuple(map(_entry.decode, fitting))
        except ValueError:
            return None
        following = offset + len(entries)
        return replace(found, offset=offset, entries=entries, next=following if following < kept else None)

    def _drop(self, most: int) -> None:
        """Remove all but the latest `most`, those that are too old, and what a crash left of a write."""
        files = sorted(self._files(), reverse=True)
        for number, (_, path) in enumerate(files):
            if number >= most or path.suffix == ".new" or self._is_old(path):
                path.unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[float, Path]]:
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                yield path.stat().st_mtime, path

    def _is_old(self, path: Path) -> bool:
        """A clock that was set back makes it old too: it is only made again."""
        return abs(self._wall() - path.stat().st_mtime) > MAX_AGE

    def _path(self, selection: str, scope: str) -> Path:
        # No id of a message has a tilde.
        return self._folder / (f"{selection}~{scope}.jsonl" if scope else f"{selection}.jsonl")


def _lines(head: Selection, entries: Iterable[FileEntry]) -> Iterator[bytes]:
    yield _encoder.encode(head) + b"\n"
    rest = iter(entries)
    while some := list(itertools.islice(rest, _CHUNK)):
        yield _encoder.encode_lines(some)
