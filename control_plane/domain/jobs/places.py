"""Where the file of a job is stored on the machine that fetches it: `{client_id}/{path}`, as a relative path.

Rule: pure. A name that a device chose never leads out of the folder, and is one that every file system takes.
"""

import hashlib
import re
from typing import Final

MAX_SEGMENT_BYTES: Final = 200
"""Bytes of one name. File systems take 255, and a name needs room for the end of an unfinished file."""

_UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')


def local_place(client_id: str, path: str) -> str:
    r"""A relative path with `/`, for a file of a client.

    >>> local_place("till-1", "/data/day.csv"), local_place("till-1", "/data/../../etc/pass\nwd")
    ('till-1/data/day.csv', 'till-1/data/__/__/etc/pass_wd')
    """
    segments = [_segment(text) for text in path.split("/") if text]
    return "/".join([_segment(client_id), *(segments or ["file"])])


def marked_place(place: str, n: int) -> str:
    """The place of another file that would have the same one: `-{n}` stands before the end of the name.

    >>> marked_place("till-1/data/day.csv", 7)
    'till-1/data/day-7.csv'
    """
    folder, slash, name = place.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    return f"{folder}{slash}{stem}-{n}{dot}{ending}" if stem else f"{folder}{slash}{name}-{n}"


def _segment(text: str) -> str:
    """One name. A trailing dot or space would be dropped by some file systems."""
    safe = _UNSAFE.sub("_", "".join(letter if letter.isprintable() else "_" for letter in text))
    if not safe.strip(". "):
        safe = "_" * len(safe)
    if safe[-1:] in {".", " "}:
        safe = f"{safe[:-1]}_"
    data = safe.encode("utf-8", "replace")
    if len(data) <= MAX_SEGMENT_BYTES:
        return safe
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{mark}-{data[-(MAX_SEGMENT_BYTES - 9) :].decode('utf-8', 'ignore')}"
