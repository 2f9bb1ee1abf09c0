"""The mount that holds a path, read from the kernel's table.

Rule: no file system is read, so a mount that does not answer delays nothing here.
"""

import re
from typing import Final

_TABLE: Final = "/proc/self/mountinfo"
_MOUNT_POINT: Final = 4
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def mount_of(path: str) -> str:
    """The mount point that holds an absolute path without links; `/` when the table cannot be read."""
    try:
        with open(_TABLE, encoding="utf-8", errors="surrogateescape") as lines:  # noqa: PTH123 (pathlib costs memory here)
            points = [_plain(line.split(" ")[_MOUNT_POINT]) for line in lines]
    except OSError:
        return "/"
    return max((point for point in points if f"{path}/".startswith(f"{point.rstrip('/')}/")), key=len, default="/")


def _plain(escaped: str) -> str:
    """A space, a tab and a backslash are written as octal numbers (proc(5))."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), escaped)
