"""Renames within open folders that never replace a file.

Rule: Python does not wrap renameat2(2), so it is called through ctypes. Where the file system or the C library does
not support `RENAME_NOREPLACE`, the file gets the new name as a link, which replaces nothing, and loses the old one.
"""

import ctypes
import errno
import functools
import os
from collections.abc import Callable
from typing import Final

_NOREPLACE: Final = 1
_UNSUPPORTED: Final = frozenset({errno.ENOSYS, errno.EINVAL})


def rename_new(folder: int, name: str, to_folder: int, to_name: str) -> None:
    """Rename `name` of one open folder to `to_name` of another, on the same file system.

    `OSError` as in rename(2), `EEXIST` when the new name is taken: then nothing has changed. Without the system's
    support another process must not put a new file in the place of the old name meanwhile.
    """
    if not _renamed(folder, name, to_folder, to_name):
        os.link(name, to_name, src_dir_fd=folder, dst_dir_fd=to_folder, follow_symlinks=False)
        os.unlink(name, dir_fd=folder)


def rename_aside(folder: int, name: str, own: str) -> None:
    """Rename `name` to `own`, a name that only the agent uses; `OSError` as for `rename_new`.

    Without the system's support a file that takes the name meanwhile is renamed, too, and no file is lost. The link
    shows before that the file can get its name back.
    """
    if not _renamed(folder, name, folder, own):
        os.link(name, own, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        os.unlink(own, dir_fd=folder)
        os.rename(name, own, src_dir_fd=folder, dst_dir_fd=folder)


def _renamed(folder: int, name: str, to_folder: int, to_name: str) -> bool:
    """Rename by renameat2; False where it is not supported."""
    call = _renameat2()
    if call is None:
        return False
    if call(folder, os.fsencode(name), to_folder, os.fsencode(to_name), _NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code not in _UNSUPPORTED:
        raise OSError(code, os.strerror(code), name)
    return False


def sync_open_folder(folder: int) -> None:
    """Make the names in an open folder durable; it may be open with `O_PATH`."""
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    library = ctypes.CDLL(None, use_errno=True)
    return getattr(library, "renameat2", None)
