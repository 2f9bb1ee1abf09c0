"""Opens a file beneath a folder, and never outside of it, even while other processes rename files and folders.

Rule: no symbolic link is followed beneath the folder, `..` is never opened, and the kernel checks it: a path that is
only compared as text can be swapped between the check and the open (as in CVE-2026-29518 in rsync).

Linux has one call for it, openat2(2); Python does not wrap it, so it is called through ctypes. Where the kernel or a
seccomp filter does not support it, the path is walked, with one `O_NOFOLLOW` open per component.
"""

import ctypes
import errno
import functools
import os
import stat
from collections.abc import Callable
from typing import Final

_SYS_OPENAT2: Final = 437
"""The number is the same on every architecture that Debian has (the unified table of Linux 5.6)."""

_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_RETRIES: Final = 32
_UNKNOWN_CALL: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL})

O_PATH: Final = os.O_PATH
FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
"""Without `O_NONBLOCK` the open of a pipe waits for a writer."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(folder: int, relative: str, flags: int) -> int:
    """Open `relative`, which has no empty, `.` or `..` component, beneath the open `folder`; a file descriptor.

    `OSError` as in open(2), `ELOOP` where a component is a symbolic link.
    """
    return (_openat2 if _has_openat2() else walk)(folder, relative, flags)


def open_folder(path: str) -> tuple[int, bool]:
    """Open a folder by its absolute path, which has no `.` or `..` component, through no link.

    Returns a file descriptor, and whether only root and the user of this process can change what the path names.
    `OSError` as in open(2), `ELOOP` where a component is a symbolic link.
    """
    current = os.open("/", FOLDER)
    try:
        above, guarded = os.fstat(current), True
        for name in filter(None, path.split("/")):
            inner = _enter(current, name)
            os.close(current)
            current = inner
            entry = os.fstat(current)
            above, guarded = entry, guarded and _is_guarded(above, entry)
    except BaseException:
        os.close(current)
        raise
    return current, guarded


def _is_guarded(above: os.stat_result, entry: os.stat_result) -> bool:
    """Whether only root and this user can put something else in the place of `entry` in the folder `above`."""
    trusted = {0, os.geteuid()}
    writable = above.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # In a sticky folder, such as /tmp, an entry is renamed only by its owner and that of the folder (inode(7)).
    shared = writable and not (above.st_mode & stat.S_ISVTX and entry.st_uid in trusted)
    return above.st_uid in trusted and not shared


def walk(folder: int, relative: str, flags: int) -> int:
    """`open_beneath` without openat2: each component is opened in the one before, never through a link."""
    *parents, name = relative.split("/")
    current = os.dup(folder)
    try:
        for parent in parents:
            inner = _enter(current, parent)
            os.close(current)
            current = inner
        return _no_link(current, name, flags)
    finally:
        os.close(current)


def _enter(folder: int, name: str) -> int:
    try:
        return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except NotADirectoryError:
        # With O_DIRECTORY a link gives ENOTDIR; openat2 gives ELOOP, and so does this function.
        _no_link_at(folder, name)
        raise


def _no_link(folder: int, name: str, flags: int) -> int:
    if flags & os.O_PATH:
        # O_PATH opens the link itself instead of refusing it.
        _no_link_at(folder, name)
    return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)


def _no_link_at(folder: int, name: str) -> None:
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)


def _openat2(folder: int, relative: str, flags: int) -> int:
    how = _OpenHow(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS)
    path = os.fsencode(relative)
    for _ in range(_RETRIES):
        descriptor = _syscall()(_SYS_OPENAT2, folder, path, ctypes.byref(how), ctypes.sizeof(how))
        if descriptor >= 0:
            return descriptor
        code = ctypes.get_errno()
        # EAGAIN: something was renamed anywhere on the system while the path was resolved (openat2(2)).
        if code not in {errno.EAGAIN, errno.EINTR}:
            raise OSError(code, os.strerror(code), relative)
    return walk(folder, relative, flags)


@functools.cache
def _syscall() -> Callable[..., int]:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function


@functools.cache
def _has_openat2() -> bool:
    """Whether the call works here: tried once, on a folder that always exists."""
    root = os.open("/", FOLDER)
    try:
        os.close(_openat2(root, "proc", FOLDER))
    except OSError as error:
        return error.errno not in _UNKNOWN_CALL
    finally:
        os.close(root)
    return True
