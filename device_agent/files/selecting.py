"""The walk of `select_files`: all files that match, and of them the first ones in the order of `pick`.

Rule: reads what `list_files` would list, beneath allowed roots and through no link. Its memory has a bound that does
not depend on the number of files or folders: the files that are kept and a quarter more, and so `MAX_PATH_BYTES` of
their paths.
"""

import errno
import itertools
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from device_agent.errors import FileRefused
from device_agent.files.file_call import FILE_CALL
from device_agent.files.listing import MAX_DEPTH, exact_file, globs_of, open_to_read, outermost, outside
from device_agent.files.own_files import identity_of
from device_agent.files.roots import CheckedFolder, Roots
from device_agent.policy.patterns import State
from schemas.errors import SchemaError
from schemas.file_names import spelled, unspelled
from schemas.globs import MAX_PATH, Globs
from schemas.messages import FileEntry, SelectFiles
from schemas.values import ErrorCode, Pick, nearest_int64

MAX_PATH_BYTES: Final = 4 * 1024 * 1024
"""UTF-8 bytes of all paths of one selection: 10,000 paths of 4,096 characters would take ten times as much."""

MAX_WALK: Final = 3600.0
"""Seconds after which a walk is given up: the next one may not wait for ever."""

_BATCH: Final = 256
"""Names that are read from one folder at a time. Up to `MAX_DEPTH` folders are open, each with one batch."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPARE: Final = 256
"""So that a selection of few files is not cut with each file."""

_NO_STATE: Final = frozenset[int]()

_Found = bytes
"""One file as bytes whose order is that of the selection: a tuple of its fields would take three times the memory.

What `pick` compares; the path's components in UTF-8, with NUL between them and two at the end; size; mtime in ns.
"""

_RANK: Final = struct.Struct(">Q")
_FIELDS: Final = struct.Struct(">Qq")
_END: Final = b"\0\0"
_BESIDE_PATH: Final = _RANK.size + len(_END) + _FIELDS.size
_MIDDLE: Final = 2**63

_Name = tuple[str, bool]
"""The spelling of a name, and whether it is a folder."""


class Chosen(Struct, frozen=True):
    """`files` and `bytes` count all that matched; `entries` are the files that the selection keeps, in its order."""

    files: int
    bytes: int
    kept: Sequence[_Found]

    @property
    def left_out(self) -> int:
        """Files that matched and are not kept."""
        return self.files - len(self.kept)

    def entries(self) -> Iterator[FileEntry]:
        """The files that are kept."""
        for found in self.kept:
            path = found[_RANK.size : -_FIELDS.size - len(_END)]
            yield FileEntry(path.replace(b"\0", b"/").decode(), *_FIELDS.unpack(found[-_FIELDS.size :]))


def choose_files(request: SelectFiles, roots: Roots, *, now_ns: int, stopped: Callable[[], bool]) -> Chosen:
    """Walk once; ages count from `now_ns`, on the clock of the files.

    `FileRefused` with `path_not_allowed` for a pattern that no root can hold a match of and for an unknown type,
    `bad_request` for a wrong pattern, `internal` when it was stopped or cannot be read.
    """
    globs, folders, exact = _places(request, roots)
    best = _Best(request, now_ns)
    walk = _Walk(globs, _excluding(request.exclude), best, roots, stopped)
    for place in folders:
        walk.root(place)
    if exact and (entry := exact_file(roots)) is not None and not walk.passed_exact:
        walk.take(entry.path, entry.size, entry.mtime_ns)
    if walk.refused is not None and not best.files:
        raise walk.refused
    return best.chosen()


def _places(request: SelectFiles, roots: Roots) -> tuple[Globs, list[CheckedFolder], bool]:
    """The patterns, the folders that may hold a match, and whether `FILE_PATH` matches."""
    if (request.type is None) is (not request.paths):
        raise FileRefused(ErrorCode.BAD_REQUEST, "select_files takes either paths or a type")
    if request.type is not None:
        kind = roots.types.get(request.type)
        if kind is None:
            known = ", ".join(sorted(roots.types)) or "none"
            text = f"this device has no file type {request.type!r}; it has {known}"
            raise FileRefused(ErrorCode.PATH_NOT_ALLOWED, text)
        return kind.globs, outermost(kind.folders), False
    for pattern in request.paths:
        glob = globs_of((pattern,))
        named = roots.exact is not None and glob.matches(roots.exact)
        if not named and not any(glob.enter(place.written) for place in roots.folders):
            raise outside(pattern, roots)
    globs = globs_of(request.paths)
    folders = [place for place in outermost(roots.folders) if globs.enter(place.written)]
    return globs, folders, roots.exact is not None and globs.matches(roots.exact)


def _excluding(patterns: Sequence[str]) -> Globs:
    try:
        return Globs.excluding(patterns)
    except SchemaError as error:
        raise FileRefused(ErrorCode.BAD_REQUEST, f"exclude: {error}") from error


class _Best:
    """Counts every file that fits, and keeps the first ones.

    It collects a quarter more than are kept: then the rest is dropped, which changes nothing of the result. The first
    one that was dropped is a bound for all later ones.
    """

    def __init__(self, request: SelectFiles, now_ns: int) -> None:
        self.files = 0
        self.bytes = 0
        self._pick = request.pick
        self._most = request.max_files
        self._sizes = range(request.min_size or 0, 2**63 if request.max_size is None else request.max_size + 1)
        self._oldest = None if request.newer_than is None else now_ns - _ns(request.newer_than)
        self._newest = None if request.older_than is None else now_ns - _ns(request.older_than)
        self._kept: list[_Found] = []
        self._path_bytes = 0
        self._bound: _Found | None = None

    def add(self, path: str, size: int, mtime_ns: int) -> None:
        """Take a file that matches, if its size and age fit."""
        if size not in self._sizes:
            return
        if (self._oldest is not None and mtime_ns < self._oldest) or (
            self._newest is not None and mtime_ns > self._newest
        ):
            return
        self.files += 1
        self.bytes += size
        rank = _RANK.pack(nearest_int64(self._rank(size, mtime_ns)) + _MIDDLE)
        if self._bound is not None and rank > self._bound[: _RANK.size]:
            return
        fields = _FIELDS.pack(size, nearest_int64(mtime_ns))
        found = b"".join((rank, path.encode().replace(b"/", b"\0"), _END, fields))
        if self._bound is not None and found > self._bound:
            return
        self._kept.append(found)
        self._path_bytes += len(found) - _BESIDE_PATH
        if 4 * len(self._kept) > 5 * self._most + _SPARE or 4 * self._path_bytes > 5 * MAX_PATH_BYTES:
            self._drop_the_rest()

    def chosen(self) -> Chosen:
        """The result."""
        self._drop_the_rest()
        return Chosen(self.files, min(self.bytes, 2**63 - 1), self._kept)

    def _rank(self, size: int, mtime_ns: int) -> int:
        match self._pick:
            case Pick.NEWEST:
                return -mtime_ns
            case Pick.OLDEST:
                return mtime_ns
            case Pick.LARGEST:
                return -size
            case Pick.SMALLEST:
                return size
            case Pick.PATH:
                return 0

    def _drop_the_rest(self) -> None:
        self._kept.sort()
        ends = itertools.accumulate(len(found) - _BESIDE_PATH for found in self._kept[: self._most])
        kept = sum(end <= MAX_PATH_BYTES for end in ends)
        if kept < len(self._kept):
            self._bound = self._kept[kept]
        del self._kept[kept:]
        self._path_bytes = sum(len(found) - _BESIDE_PATH for found in self._kept)


class _States(NamedTuple):
    """In one folder: the state of the patterns, of what the request excludes, and of what the policy denies."""

    matching: State
    left_out: State
    denied: State


class _Walk:
    """Visits every entry of some folders once, in the order of the file system."""

    def __init__(self, globs: Globs, excluded: Globs, best: _Best, roots: Roots, stopped: Callable[[], bool]) -> None:
        self.refused: FileRefused | None = None
        self.passed_exact = False
        self._globs = globs
        self._excluded = excluded
        self._best = best
        self._exact = roots.exact
        self._roots = roots
        self._policy = roots.policy
        self._own = roots.own.identities()
        self._stopped = stopped
        self._until = time.monotonic() + MAX_WALK

    def root(self, place: CheckedFolder) -> None:
        """All files beneath one root; the other roots are read all the same if this one is refused."""
        denied = self._roots.denied_below(place)
        if self._excluded.covers(place.written) or denied is None:
            return
        try:
            descriptor = open_to_read(place)
        except OSError:
            return
        except FileRefused as refused:
            self.refused = refused
            return
        above = [name for name in place.written.split("/") if name]
        left_out = self._excluded.start
        for name in above:
            left_out = self._excluded.step(left_out, name)
        prefix = "".join(f"/{name}" for name in above)
        self._beneath(descriptor, prefix, len(above), _States(self._globs.enter(place.written), left_out, denied))

    def take(self, path: str, size: int, mtime_ns: int) -> None:
        """Take a file that matches and is not excluded by a folder above it."""
        if not self._excluded.covers(path):
            self._best.add(path, size, mtime_ns)

    def _beneath(self, folder: int, prefix: str, depth: int, states: "_States") -> None:
        try:
            for batch in _batches(folder):
                self._require_time()
                for name, is_folder in batch:
                    inner = self._step(states, name)
                    if inner is None or not self._policy.reaches(f"{prefix}/{name}"):
                        continue
                    if is_folder:
                        if depth < MAX_DEPTH and (below := self._open(folder, name)) is not None:
                            self._beneath(below, f"{prefix}/{name}", depth + 1, inner)
                    elif self._globs.accepts(inner.matching):
                        self._file(folder, prefix, name)
        finally:
            with FILE_CALL:
                os.close(folder)

    def _step(self, states: "_States", name: str) -> "_States | None":
        """The states after one more component; None where nothing there can be selected."""
        matching = self._globs.step(states.matching, name)
        left_out = self._excluded.step(states.left_out, name) if states.left_out else _NO_STATE
        if not matching or self._excluded.accepts(left_out):
            return None
        denied = self._policy.denies.step(states.denied, name)
        return None if denied is None else _States(matching, left_out, denied)

    def _open(self, folder: int, name: str) -> int | None:
        """The folder of this name; None for one that is gone, that may not be read, or that is the agent's own."""
        try:
            with FILE_CALL:
                below = os.open(unspelled(name), _FOLDER, dir_fd=folder)
                own = identity_of(os.fstat(below)) in self._own
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                raise FileRefused(ErrorCode.INTERNAL, f"cannot list: {error.strerror}") from error
            return None
        if own:
            os.close(below)
            return None
        return below

    def _file(self, folder: int, prefix: str, name: str) -> None:
        path = f"{prefix}/{name}"
        try:
            with FILE_CALL:
                found = os.stat(unspelled(name), dir_fd=folder, follow_symlinks=False)
        except OSError:
            return
        readable = stat.S_ISREG(found.st_mode) and identity_of(found) not in self._own
        if readable and len(path) <= MAX_PATH and not self._policy.hides(found):
            self._best.add(path, found.st_size, found.st_mtime_ns)
            self.passed_exact = self.passed_exact or path == self._exact

    def _require_time(self) -> None:
        if self._stopped():
            raise FileRefused(ErrorCode.INTERNAL, "the agent stops")
        if time.monotonic() > self._until:
            text = f"the files were not walked through in {MAX_WALK:.0f} s: narrow the patterns"
            raise FileRefused(ErrorCode.INTERNAL, text)


def _batches(folder: int) -> Iterator[list[_Name]]:
    """The files and folders in an open folder, some names at a time; links, pipes and the like are left out."""
    with FILE_CALL:
        try:
            entries = os.scandir(folder)
        except OSError:
            return
    with entries:
        while True:
            try:
                with FILE_CALL:
                    some = list(itertools.islice(entries, _BATCH))
                    batch = [(spelled(entry.name), _is_folder(entry)) for entry in some if _is_readable(entry)]
            except OSError:
                return
            if not some:
                return
            yield batch


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _is_readable(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
