"""The file work of `after`: hide a file, compare it with what was sent, delete or move it, or give its name back.

Rule: runs on a worker thread. Every name is used beneath a folder that is held open, and only the file that was
compared, by its descriptor, is acted on. No call replaces a file. What cannot be done leaves the file, under a visible
name, and gives the reason.

The name of the hidden file follows from the upload, so that no crash loses it: `.NAME.HASH.backhaul-after`.
"""

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from device_agent.after.machine import Checked, Differs, Ended, FileEvent, FileKept, Hidden, Phase
from device_agent.after.policy import act_of
from device_agent.errors import FileRefused
from device_agent.files.file_call import FILE_CALL
from device_agent.files.own_files import identity_of
from device_agent.files.renames import rename_aside, rename_new, sync_open_folder
from device_agent.files.roots import Roots
from device_agent.files.safe_open import FOLDER, open_beneath
from device_agent.files.source import Source, open_in
from device_agent.transfer.closing import content_of
from device_agent.transfer.records import Afterwards
from device_agent.transfer.source_change import Sameness, compare_later, compare_renamed
from schemas.file_names import spelled, unspelled
from schemas.messages import DELETE, MOVE
from schemas.parts import PartPlan
from schemas.values import AfterOutcome, ErrorCode, Fingerprint

SUFFIX: Final = ".backhaul-after"
_LONGEST_NAME: Final = 255
"""Bytes of a name on Linux."""

_CODES: Final = {
    errno.EACCES: ErrorCode.PERMISSION_DENIED,
    errno.EPERM: ErrorCode.PERMISSION_DENIED,
    errno.EROFS: ErrorCode.PERMISSION_DENIED,
    errno.ENOENT: ErrorCode.SOURCE_GONE,
    errno.ENOTDIR: ErrorCode.SOURCE_GONE,
    errno.ELOOP: ErrorCode.PATH_NOT_ALLOWED,
}
_CHANGED: Final = "the file changed after it was sent"


class _Place(NamedTuple):
    """A file by its open folder: its own name, and the hidden one."""

    folder: int
    name: str
    hidden: str


class AfterFiles:
    """Does the work of each phase; `stopped` ends a reading soon, which then has no event.

    `forbids` is why the settings do not allow an act for a path, None when they do.
    """

    def __init__(
        self,
        roots: Roots,
        stopped: Callable[[], bool] = lambda: False,
        forbids: Callable[[str, str], str | None] = lambda _asked, _path: None,
    ) -> None:
        self._roots = roots
        self._stopped = stopped
        self._forbids = forbids

    def work(self, upload_id: str, after: Afterwards, phase: Phase) -> FileEvent | None:
        """Do the work of `HIDE`, `CHECK` or `END`; None when it was stopped. Never raises for a fault of the file."""
        call = {Phase.HIDE: self._hide, Phase.CHECK: self._check, Phase.END: self._end}[phase]
        act = act_of(after.asked)
        try:
            with self._open(upload_id, after) as place:
                try:
                    self._require_allowed(after, place, phase)
                    return call(after, place)
                except (FileRefused, OSError) as error:
                    kept = _refused(after, act, error)
                    return _give_back(place, kept.text, kept.code) if _exists(place.folder, place.hidden) else kept
        except (FileRefused, OSError) as error:
            return _refused(after, act, error)

    def _require_allowed(self, after: Afterwards, place: _Place, phase: Phase) -> None:
        """`FileRefused` when the settings of this start forbid the act, unless it was done before."""
        forbidden = self._forbids(after.asked, after.file_path)
        if forbidden is not None and (phase is not Phase.END or _exists(place.folder, place.hidden)):
            raise FileRefused(ErrorCode.AFTER_NOT_ALLOWED, forbidden)

    def _hide(self, after: Afterwards, place: _Place) -> FileEvent:
        _drop_second_name(place)
        if (known := _found(place, place.hidden, after)) is not None:
            # The agent ended after the rename; its owner's grace begins anew.
            with known:
                return Hidden() if _is_sent(after, known.fingerprint) else _give_back(place, _CHANGED)
        if (obstacle := self._obstacle(after, place)) is not None:
            return obstacle
        source = _found(place, place.name, after)
        if source is None:
            return FileKept(ErrorCode.SOURCE_GONE, f"{after.file_path!r} was deleted or renamed by another process")
        with source:
            if identity_of(_stat(place, place.name)) in self._roots.own.identities():
                return FileKept(ErrorCode.PATH_NOT_ALLOWED, f"{after.file_path!r} is a file of the agent itself")
            if not _is_sent(after, source.fingerprint):
                return FileKept(ErrorCode.SOURCE_CHANGED, f"{_CHANGED}, or another has its name")
            with FILE_CALL:
                rename_aside(place.folder, place.name, place.hidden)
            # Only now it is known which file was renamed: another may have taken the name since it was opened.
            renamed = _same_file(source.fingerprint, _stat(place, place.hidden))
            if not renamed or compare_renamed(source.fingerprint, source.now()) is Sameness.CHANGED:
                return _give_back(place, _CHANGED)
        return Hidden()

    def _obstacle(self, after: Afterwards, place: _Place) -> FileKept | None:
        """Why the file cannot be moved, found out before it is touched."""
        if after.asked == DELETE:
            return None
        with self._target(after) as target:
            if identity_of(os.fstat(target)) in self._roots.own.identities():
                text = f"{_target_of(after)!r} is a folder of the agent itself"
                return FileKept(ErrorCode.PATH_NOT_ALLOWED, text)
            if os.fstat(target).st_dev != os.fstat(place.folder).st_dev:
                text = f"{_target_of(after)!r} is on another file system"
                return FileKept(ErrorCode.AFTER_NOT_POSSIBLE, text)
            if _exists(target, place.name):
                return _taken(after, place)
        return None

    def _check(self, after: Afterwards, place: _Place) -> FileEvent | None:
        source = _found(place, place.hidden, after)
        if source is None:
            return FileKept(ErrorCode.SOURCE_GONE, f"{after.file_path!r} was deleted by another process")
        with source:
            source.wait_until_not_racy(time.sleep)
            before = source.now()
            if not _is_sent(after, before) or not source.ends_at(before.size):
                return _give_back(place, _CHANGED)
            digests: dict[int, str | None] = {}
            for part in PartPlan(before.size, after.part_size):
                if self._stopped():
                    return None
                digests[part.number] = source.digest(part.offset, part.size, after.digest)
            if content_of(digests) != after.content or source.now() != before:
                return _give_back(place, _CHANGED)
            return Checked(before)

    def _end(self, after: Afterwards, place: _Place) -> FileEvent:
        source = _found(place, place.hidden, after)
        if source is None:
            return self._ended_before(after, place)
        with source:
            if source.fingerprint != after.found or not _same_file(after.found, _stat(place, place.hidden)):
                return Differs()
            if after.asked != DELETE:
                return self._move(after, place, source)
            with FILE_CALL:
                os.unlink(place.hidden, dir_fd=place.folder)
                sync_open_folder(place.folder)
        return Ended(AfterOutcome.DELETED)

    def _ended_before(self, after: Afterwards, place: _Place) -> FileEvent:
        """The hidden name is gone: the agent ended before it could keep the outcome."""
        visible = _found(place, place.name, after)
        if visible is not None:
            with visible:
                if _is_sent(after, visible.fingerprint):
                    # It had been given its name back, and only that was not kept.
                    return Differs()
        if after.asked == DELETE:
            with FILE_CALL:
                sync_open_folder(place.folder)
            return Ended(AfterOutcome.DELETED)
        with self._target(after) as target:
            there = _found(_Place(target, place.name, place.name), place.name, after)
            if there is None:
                return FileKept(ErrorCode.SOURCE_GONE, f"{after.file_path!r} was deleted by another process")
            with there:
                moved = _is_sent(after, there.fingerprint)
            with FILE_CALL:
                sync_open_folder(target)
                sync_open_folder(place.folder)
        return Ended(AfterOutcome.MOVED, _moved_to(after, place)) if moved else _taken(after, place)

    def _move(self, after: Afterwards, place: _Place, source: Source) -> FileEvent:
        before = source.fingerprint
        with self._target(after) as target:
            try:
                with FILE_CALL:
                    rename_new(place.folder, place.hidden, target, place.name)
            except OSError as error:
                if error.errno == errno.EEXIST:
                    return _give_back(place, _taken(after, place).text, ErrorCode.AFTER_NOT_POSSIBLE)
                code = _CODES.get(error.errno or 0, ErrorCode.AFTER_NOT_POSSIBLE)
                return _give_back(place, f"{_moved_to(after, place)!r}: {error.strerror}", code)
            result: FileEvent = Ended(AfterOutcome.MOVED, _moved_to(after, place))
            if compare_renamed(before, source.now()) is Sameness.CHANGED:
                # Written between the last look and the rename: back to where its writer looks for it.
                result = FileKept(ErrorCode.SOURCE_CHANGED, f"{_CHANGED}, and is at {_moved_to(after, place)!r}")
                with contextlib.suppress(OSError):
                    rename_new(target, place.name, place.folder, place.name)
                    result = FileKept(ErrorCode.SOURCE_CHANGED, _CHANGED)
            with FILE_CALL:
                sync_open_folder(target)
                sync_open_folder(place.folder)
        return result

    @contextlib.contextmanager
    def _open(self, upload_id: str, after: Afterwards) -> Iterator[_Place]:
        """The open folder of the file; `FileRefused` and `OSError` as for a file that is uploaded."""
        if Path(unspelled(after.file_path)).is_symlink():
            raise FileRefused(ErrorCode.PATH_NOT_ALLOWED, f"{after.file_path!r} is a symbolic link")
        with FILE_CALL:
            place, relative = self._roots.locate(after.file_path)
            above, _, name = relative.rpartition("/")
            folder = _open_below(place.open(), above)
        try:
            yield _Place(folder, name, hidden_name(name, upload_id))
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _target(self, after: Afterwards) -> Iterator[int]:
        """The open folder that the file is moved into; `FileRefused` when there is none."""
        path = _target_of(after)
        try:
            with FILE_CALL:
                place, relative = self._roots.locate(f"{path}/x")
                folder = _open_below(place.open(), relative.rpartition("/")[0])
        except OSError as error:
            text = f"the folder {path!r} cannot be used: {error.strerror}"
            raise FileRefused(ErrorCode.AFTER_NOT_POSSIBLE, text) from error
        try:
            yield folder
        finally:
            os.close(folder)


def _refused(after: Afterwards, act: str, error: FileRefused | OSError) -> FileKept:
    if isinstance(error, FileRefused):
        return FileKept(error.code, error.text)
    code = _CODES.get(error.errno or 0, ErrorCode.INTERNAL)
    return FileKept(code, f"the agent could not {act} {after.file_path!r}: {error.strerror}")


def hidden_name(name: str, upload_id: str) -> str:
    """The hidden name of a file, in its folder: of 255 bytes at most."""
    end = f".{hashlib.sha256(upload_id.encode()).hexdigest()[:12]}{SUFFIX}".encode()
    return os.fsdecode(b"." + os.fsencode(name)[: _LONGEST_NAME - 1 - len(end)] + end)


def _found(place: _Place, name: str, after: Afterwards) -> Source | None:
    """The file with this name, open; None when there is none."""
    try:
        return open_in(place.folder, name, after.file_path)
    except FileNotFoundError:
        return None


def _is_sent(after: Afterwards, found: Fingerprint) -> bool:
    """Whether the file may be the one that was sent, as its size and its time show; `_check` reads it."""
    return after.source is not None and compare_later(after.source, found) is not Sameness.CHANGED


def _same_file(found: Fingerprint | None, there: os.stat_result) -> bool:
    return found is not None and (found.device, found.inode) == identity_of(there)


def _stat(place: _Place, name: str) -> os.stat_result:
    with FILE_CALL:
        return os.stat(name, dir_fd=place.folder, follow_symlinks=False)


def _drop_second_name(place: _Place) -> None:
    """Where a rename is a link and an unlink, a crash between them leaves both names: drop the hidden one."""
    with contextlib.suppress(FileNotFoundError):
        if identity_of(_stat(place, place.hidden)) == identity_of(_stat(place, place.name)):
            with FILE_CALL:
                os.unlink(place.hidden, dir_fd=place.folder)


def _exists(folder: int, name: str) -> bool:
    with FILE_CALL, contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        return True
    return False


def _give_back(place: _Place, why: str, code: ErrorCode = ErrorCode.SOURCE_CHANGED) -> FileKept:
    """Give a hidden file its name back; where another file has it, a visible name beside it."""
    end = f".kept-{place.hidden[-len(SUFFIX) - 12 : -len(SUFFIX)]}".encode()
    beside = os.fsdecode(os.fsencode(place.name)[: _LONGEST_NAME - len(end)] + end)
    for name in (place.name, beside):
        try:
            with FILE_CALL:
                rename_new(place.folder, place.hidden, place.folder, name)
                sync_open_folder(place.folder)
        except FileExistsError:
            continue
        except OSError as error:
            return FileKept(code, f"{why}; it stays as {spelled(place.hidden)!r}: {error.strerror}")
        return FileKept(code, why if name == place.name else f"{why}; it stays as {spelled(name)!r}, its name is taken")
    return FileKept(code, f"{why}; it stays as {spelled(place.hidden)!r}")


def _taken(after: Afterwards, place: _Place) -> FileKept:
    return FileKept(ErrorCode.AFTER_NOT_POSSIBLE, f"{_moved_to(after, place)!r} exists already")


def _target_of(after: Afterwards) -> str:
    return after.asked.removeprefix(MOVE).rstrip("/")


def _moved_to(after: Afterwards, place: _Place) -> str:
    return f"{_target_of(after)}/{spelled(place.name)}"


def _open_below(folder: int, relative: str) -> int:
    """The folder `relative` beneath an open one, which is closed; itself for an empty path."""
    if not relative:
        return folder
    try:
        return open_beneath(folder, relative, FOLDER)
    finally:
        os.close(folder)
