"""The selections of one simulated device: which of its files match, kept so that each page is of one content.

Rule: no IO. As protocol.md section 3.5, but that `*` matches `/` too: a simulated device has one folder.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from schemas.messages import FileEntry, SelectFiles, Selection
from schemas.values import Pick

_MOST: Final = 16
_ORDERS: Final[dict[Pick, Callable[[FileEntry], Any]]] = {
    Pick.NEWEST: lambda one: (-one.mtime_ns, one.path),
    Pick.OLDEST: lambda one: (one.mtime_ns, one.path),
    Pick.LARGEST: lambda one: (-one.size, one.path),
    Pick.SMALLEST: lambda one: (one.size, one.path),
    Pick.PATH: lambda one: one.path,
}


class Selections:
    """Makes selections and reads pages of them; the latest 16 are kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, list[FileEntry]] = OrderedDict()

    def answer(self, message_id: str, wanted: SelectFiles, files: Iterable[FileEntry], now: float) -> Selection:
        """A page of the selection that `wanted` names; of a new one when it names none, or one that is gone.

        `now` is the device's clock (s since the epoch).
        """
        known = wanted.selection if wanted.selection in self._kept else None
        if known is None:
            self._keep(
                message_id, sorted((one for one in files if _matches(one, wanted, now)), key=_ORDERS[wanted.pick])
            )
        selection = known or message_id
        offset = wanted.offset if known else 0
        found = self._kept[selection]
        kept = found[: wanted.max_files]
        entries = tuple(kept[offset : offset + wanted.limit])
        after = offset + len(entries)
        return Selection(
            job_id=wanted.job_id,
            selection=selection,
            complete=True,
            files=len(found),
            bytes=sum(one.size for one in found),
            left_out=len(found) - len(kept),
            offset=offset,
            entries=entries,
            next=after if after < len(kept) else None,
        )

    def _keep(self, selection: str, found: list[FileEntry]) -> None:
        self._kept[selection] = found
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)


def _matches(one: FileEntry, wanted: SelectFiles, now: float) -> bool:
    age = now - one.mtime_ns / 1e9
    return (
        _any(one.path, wanted.paths)
        and not _any(one.path, [pattern if pattern.startswith("/") else f"*/{pattern}" for pattern in wanted.exclude])
        and (wanted.newer_than is None or age <= wanted.newer_than)
        and (wanted.older_than is None or age >= wanted.older_than)
        and (wanted.min_size is None or one.size >= wanted.min_size)
        and (wanted.max_size is None or one.size <= wanted.max_size)
    )


def _any(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) or fnmatchcase(path, pattern.replace("**/", "")) for pattern in patterns)
