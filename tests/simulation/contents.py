"""File contents as ranges, each written at one time, in place of bytes.

Rule: two ranges are equal exactly when their bytes would be, offsets included. So a part from another place or version
is never taken for the right one, and a terabyte costs nothing.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache

Content = tuple[tuple[int, int, int], ...]
"""`(start, end, stamp)` in order; `stamp` names the write that made these bytes."""


def clip(content: Content, offset: int, size: int) -> Content:
    """The bytes from `offset` on, `size` of them or as many as there are."""
    end = offset + size
    return tuple((max(a, offset), min(b, end), stamp) for a, b, stamp in content if a < end and b > offset)


def join(pieces: Iterable[Content]) -> Content:
    """Pieces one after another, in normal form."""
    joined: list[tuple[int, int, int]] = []
    for piece in pieces:
        for start, end, stamp in piece:
            if joined and joined[-1][2] == stamp and joined[-1][1] == start:
                joined[-1] = (joined[-1][0], end, stamp)
            else:
                joined.append((start, end, stamp))
    return tuple(joined)


def size_of(content: Content) -> int:
    """In bytes."""
    return sum(end - start for start, end, _ in content)


@lru_cache(maxsize=4096)
def md5(content: Content) -> bytes:
    """A digest that takes the place of the MD5 of these bytes."""
    return hashlib.md5(repr(content).encode(), usedforsecurity=False).digest()


def md5_base64(content: Content) -> str:
    """The same in base64, as on the wire."""
    return b64encode(md5(content)).decode()
