"""The files that match a pattern: the answer to `list_files`.

Rule: only beneath allowed roots, through no link, and `FILE_PATH` itself; bounded in files, bytes of answer, entries
examined, bytes digested and memory, for any content of the folders. A page that leaves files out has a cursor to them.

Folders are listed on request, each before what is in it. Names are spelled as `schemas.file_names` does it, also in
patterns. Files are ordered by their path components. A cursor is the last path that was examined, so a file that
appears or disappears between two pages shifts no other.
"""

import errno
import functools
import heapq
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from device_agent.errors import FileRefused
from device_agent.files.file_call import FILE_CALL
from device_agent.files.own_files import identity_of
from device_agent.files.roots import CheckedFolder, Roots, beneath, require_plain
from device_agent.files.source import open_source
from device_agent.policy.patterns import State
from schemas.codec import GRANT_FILL_SIZE
from schemas.errors import SchemaError
from schemas.file_names import spelled, unspelled
from schemas.globs import MAX_PATH, Globs
from schemas.messages import FileEntry, FileList, ListFiles
from schemas.values import DigestName, ErrorCode, nearest_int64

MAX_EXAMINED: Final = 20_000
MAX_DIGESTED: Final = 256 * 1024 * 1024
"""Bytes digested for one page; a single file that is larger is listed without its digest."""

MAX_CPU: Final = 1.0
"""Seconds of processor time for one page; it ends then, and its cursor leads to the rest."""

_CPU_EVERY: Final = 256
"""Entries between two looks at the processor time. A page examines the folders above its cursor again, 64 at most, so
each one makes progress.
"""

MAX_DEPTH: Final = 64
_BATCH: Final = 1000
_MOST_NAMED: Final = 1000
"""Characters of the roots in an error."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def list_files(request: ListFiles, roots: Roots) -> FileList:
    """One page of the files that match `request.pattern`, an absolute path with `*`, `?`, `[…]` and `**`.

    As in a shell, a name that begins with a dot is matched only by a pattern that does. `FileRefused` with
    `path_not_allowed` when no root can hold a match, `bad_request` for an invalid cursor.
    """
    glob = globs_of((request.pattern,))
    after = _components(request.cursor)
    walk = _Walk(glob, after, roots, folders=request.folders)
    folders = [place for place in outermost(roots.folders) if glob.enter(place.written)]
    named = roots.exact is not None and glob.matches(roots.exact)
    if not folders and not named:
        raise outside(request.pattern, roots)
    page = _Page(request, roots)
    exact = exact_file(roots) if named and _parts(roots.exact or "") > after else None
    for entry in _with(exact, walk, folders):
        if not page.add(entry):
            return FileList(tuple(page.entries), page.entries[-1].path)
    if walk.refused is not None and not page.entries and not walk.exhausted:
        raise walk.refused
    return FileList(tuple(page.entries), walk.position if walk.exhausted else None)


def exact_file(roots: Roots) -> FileEntry | None:
    """`FILE_PATH`, if it can be read."""
    path = roots.exact
    if path is None:
        return None
    try:
        with open_source(path, roots) as source:
            return FileEntry(path, source.size, source.fingerprint.mtime_ns)
    except FileRefused:
        return None


def _with(exact: FileEntry | None, walk: "_Walk", folders: list[CheckedFolder]) -> Iterator[FileEntry]:
    """The files of the walk, and the exact file once at its position: a root may hold it, a link to it, or neither."""
    for place in folders:
        for entry in walk.files(place):
            if exact is not None and _parts(exact.path) <= _parts(entry.path):
                if exact.path != entry.path:
                    yield exact
                exact = None
            yield entry
        if walk.exhausted:
            break
    # After a walk that was cut short, the files behind its position belong to the next page.
    if exact is not None and (not walk.exhausted or _parts(exact.path) <= _parts(walk.position or "/")):
        yield exact


class _Walk:
    """Every matching file after a cursor, in order; one sorted batch of names per open folder is in memory."""

    def __init__(self, glob: Globs, after: tuple[str, ...], roots: Roots, *, folders: bool) -> None:
        self.position: str | None = None
        self.exhausted = False
        self.refused: FileRefused | None = None
        self._roots = roots
        self._policy = roots.policy
        self._own = roots.own.identities()
        self._glob = glob
        self._folders = folders
        self._after = after
        self._examined = 0
        self._began = time.thread_time()

    def files(self, place: CheckedFolder) -> Iterator[FileEntry]:
        """The files beneath one root. Ends early, with `exhausted` set, after `MAX_EXAMINED` entries."""
        above = tuple(filter(None, place.written.split("/")))
        inside = self._after[: len(above)] == above
        if not inside and above < self._after:
            return
        denied = self._roots.denied_below(place)
        if denied is None:
            return
        try:
            folder = open_to_read(place)
        except OSError:
            return
        except FileRefused as refused:
            # The other roots are listed all the same.
            self.refused = refused
            return
        root = _Folder(folder, above, self._glob.enter(place.written), denied)
        yield from self._beneath(root, self._after[len(above) :] if inside else ())

    def _beneath(self, folder: "_Folder", after: tuple[str, ...]) -> Iterator[FileEntry]:
        try:
            step = functools.partial(self._step, folder)
            for name in folder.names(after[0] if after else "", step):
                rest = after[1:] if after and name == after[0] else None
                if (inside := step(name)) is None:
                    continue
                if self._examined >= MAX_EXAMINED or self._is_late():
                    self.exhausted = True
                    return
                self._examined += 1
                # Set before the content of a folder: a cursor to a folder means that none of its entries was examined.
                self.position = folder.path(name)
                yield from self._entry(folder, name, inside, rest)
                if self.exhausted:
                    return
        finally:
            with FILE_CALL:
                os.close(folder.descriptor)

    def _step(self, folder: "_Folder", name: str) -> tuple[State, State] | None:
        """The states after one more component; None where nothing can be listed, so that no such name is a cursor."""
        states = self._glob.step(folder.states, name)
        denied = self._policy.denies.step(folder.denied, name) if states else None
        return None if denied is None or not self._policy.reaches(folder.path(name)) else (states, denied)

    def _is_late(self) -> bool:
        due = self._examined > 0 and self._examined % _CPU_EVERY == 0
        return due and time.thread_time() - self._began > MAX_CPU

    def _entry(
        self, folder: "_Folder", name: str, inside: tuple[State, State], rest: tuple[str, ...] | None
    ) -> Iterator[FileEntry]:
        """One entry: a file, or a folder and what is in it. `rest` is the cursor beneath it, None for a later entry."""
        states, denied = inside
        try:
            with FILE_CALL:
                found = os.stat(unspelled(name), dir_fd=folder.descriptor, follow_symlinks=False)
            if identity_of(found) in self._own:
                return
            wanted = rest is None and self._glob.accepts(states)
            if stat.S_ISDIR(found.st_mode) and wanted and self._folders:
                yield FileEntry(folder.path(name), 0, nearest_int64(found.st_mtime_ns), folder=True)
            if stat.S_ISDIR(found.st_mode) and len(folder.above) < MAX_DEPTH:
                with FILE_CALL:
                    inner = os.open(unspelled(name), _FOLDER, dir_fd=folder.descriptor)
                yield from self._beneath(_Folder(inner, (*folder.above, name), states, denied), rest or ())
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                raise FileRefused(ErrorCode.INTERNAL, f"cannot list: {error.strerror}") from error
            return
        if stat.S_ISREG(found.st_mode) and wanted and not self._policy.hides(found):
            yield FileEntry(folder.path(name), found.st_size, nearest_int64(found.st_mtime_ns))


class _Folder(Struct, frozen=True):
    """An open folder, the components of its path, and in it the state of the pattern and of what is denied."""

    descriptor: int
    above: tuple[str, ...]
    states: State
    denied: State

    def path(self, name: str) -> str:
        """The path of an entry."""
        return "/" + "/".join((*self.above, name))

    def names(self, first: str, wanted: Callable[[str], object]) -> Iterator[str]:
        """The wanted names from `first` on, sorted; read again for each batch: a million names need no memory."""
        while True:
            spellings = map(spelled, _names_in(self.descriptor))
            batch = heapq.nsmallest(_BATCH, (name for name in spellings if name >= first and wanted(name)))
            # A longer path cannot be sent, nor be in a command.
            yield from (name for name in batch if len(self.path(name)) <= MAX_PATH)
            if len(batch) < _BATCH:
                return
            first = batch[-1] + "\0"


def _names_in(folder: int) -> Iterator[str]:
    with FILE_CALL:
        entries = os.scandir(folder)
    with entries:
        while True:
            with FILE_CALL:
                names = [entry.name for entry in itertools.islice(entries, _BATCH)]
            if not names:
                return
            yield from names


class _Page:
    """The files of one answer."""

    def __init__(self, request: ListFiles, roots: Roots) -> None:
        self.entries: list[FileEntry] = []
        self._request = request
        self._roots = roots
        self._room = GRANT_FILL_SIZE
        self._digestible = MAX_DIGESTED

    def add(self, entry: FileEntry) -> bool:
        """Add a file; False when the page is full without it. The first one always fits."""
        if len(self.entries) >= self._request.limit:
            return False
        name = self._request.digest
        if name not in {None, DigestName.NONE} and not entry.folder and entry.size <= MAX_DIGESTED:
            if entry.size > self._digestible:
                return False
            entry = self._digested(entry, name or DigestName.NONE)
        size = len(msgspec.json.encode(entry)) + 1
        if size > self._room:
            return False
        self._room -= size
        self.entries.append(entry)
        return True

    def _digested(self, entry: FileEntry, name: DigestName) -> FileEntry:
        """The entry with the digest of the file, or without it when the file cannot be read or has changed."""
        try:
            with open_source(entry.path, self._roots) as source:
                self._digestible -= min(source.size, self._digestible)
                digest = source.whole_digest(name) if source.size == entry.size else None
        except FileRefused:
            return entry
        return msgspec.structs.replace(entry, digest=digest)


def open_to_read(place: CheckedFolder) -> int:
    """A descriptor of a root from which names can be read; fails as `CheckedFolder.open`."""
    with FILE_CALL:
        above = place.open()
        try:
            return os.open(".", _FOLDER, dir_fd=above)
        finally:
            os.close(above)


def _parts(path: str) -> tuple[str, ...]:
    """A path's components, by which everything is ordered."""
    return tuple(path.split("/")[1:])


def _components(cursor: str | None) -> tuple[str, ...]:
    if cursor is None:
        return ()
    try:
        return tuple(require_plain(cursor))
    except FileRefused as refused:
        text = "the cursor was not created by this agent"
        raise FileRefused(ErrorCode.BAD_REQUEST, text) from refused


def outermost(folders: Sequence[CheckedFolder]) -> list[CheckedFolder]:
    """The folders that lie in no other one, in the order of their components."""
    split = {place: list(filter(None, place.written.split("/"))) for place in folders}
    inner = {place for place in folders for other in folders if beneath(other.written, split[place])}
    return sorted(set(folders) - inner, key=split.__getitem__)


def globs_of(patterns: Sequence[str]) -> Globs:
    """The patterns of a command; `FileRefused` with `path_not_allowed` or `bad_request`."""
    for pattern in patterns:
        require_plain(pattern)
    try:
        return Globs(patterns)
    except SchemaError as error:
        raise FileRefused(ErrorCode.BAD_REQUEST, str(error)) from error


def outside(pattern: str, roots: Roots) -> FileRefused:
    """The refusal of a pattern that no root can hold a match of; it names the roots."""
    named = ", ".join(filter(None, (*(place.written for place in roots.folders), roots.exact)))
    where = f": {named[:_MOST_NAMED]}" if named else ", which has none"
    text = f"{pattern!r} matches nothing inside ALLOWED_ROOTS of this device{where}"
    return FileRefused(ErrorCode.PATH_NOT_ALLOWED, text)
