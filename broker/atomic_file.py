"""Replacing a file as a whole.

Rule: a reader, or the next start after a power cut, finds the old content or the new one, never a part of either.
"""

import os
import tempfile
from pathlib import Path


def replace_file(path: Path, data: bytes, *, owner_of_folder: bool = False) -> None:
    """Write a new file of mode 0600 and rename it to `path`; on return it is on the disk.

    After `OSError` the old or the new file is there, whole: the last step, an fsync of the folder, may fail as well.

    With `owner_of_folder`, and run by root, the new file gets the owner and group of its folder.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
            if owner_of_folder and os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(handle, owner.st_uid, owner.st_gid)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
