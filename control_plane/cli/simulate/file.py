"""The files that every simulated device has.

Rule: the bytes of a part depend on its size alone, so that thousands of devices share one block and its digests.
"""

import hashlib
import os
import zlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from schemas.messages import FileEntry
from schemas.parts import Part
from schemas.values import DigestName, Fingerprint

FOLDER: Final = "/simulated"
PATH: Final = f"{FOLDER}/file.bin"
_BLOCK: Final = os.urandom(64 * 1024)
_MTIME_NS: Final = 1_750_000_000_000_000_000
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class SyntheticFile:
    """A file of `size` bytes that exists nowhere."""

    size: int
    path: str = PATH
    mtime_ns: int = _MTIME_NS

    @property
    def fingerprint(self) -> Fingerprint:
        """As a file system would report it."""
        return Fingerprint(self.size, self.mtime_ns, self.mtime_ns, 1, 1)

    @property
    def entry(self) -> FileEntry:
        """The file in a listing."""
        return FileEntry(self.path, self.size, self.mtime_ns)

    def body(self, part: Part) -> bytes:
        """The bytes of a part."""
        return _body(part.size)

    def digest(self, name: DigestName, part: Part) -> str | None:
        """The digest of a part in the form of the protocol; None for `none`."""
        raw = _raw_digest(name, part.size)
        return None if raw is None else b64encode(raw).decode()


def files_of(count: int, size: int) -> Mapping[str, SyntheticFile]:
    """`count` files of `size` bytes by path, each a second newer than the one before; the first is the default file."""
    paths = [PATH, *(f"{FOLDER}/file-{number}.bin" for number in range(2, count + 1))]
    return {path: SyntheticFile(size, path, _MTIME_NS + number * _SECOND) for number, path in enumerate(paths)}


# A few sizes at a time: whole parts, and the last part of each size of file.
@lru_cache(maxsize=8)
def _body(size: int) -> bytes:
    return (_BLOCK * (size // len(_BLOCK) + 1))[:size]


@lru_cache(maxsize=64)
def _raw_digest(name: DigestName, size: int) -> bytes | None:
    body = _body(size)
    match name:
        case DigestName.MD5:
            return hashlib.md5(body, usedforsecurity=False).digest()
        case DigestName.SHA256:
            return hashlib.sha256(body).digest()
        case DigestName.CRC32:
            return zlib.crc32(body).to_bytes(4)
        case DigestName.NONE:
            return None
