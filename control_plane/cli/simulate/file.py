"""The one file that every simulated device has.

Rule: the bytes of a part depend on its size alone, so that thousands of devices share one block and its digests.
"""

import hashlib
import os
import zlib
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final

from schemas.messages import FileEntry
from schemas.parts import Part
from schemas.values import DigestName, Fingerprint

PATH: Final = "/simulated/file.bin"
_BLOCK: Final = os.urandom(64 * 1024)
_MTIME_NS: Final = 1_750_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class SyntheticFile:
    """A file of `size` bytes that exists nowhere."""

    size: int
    path: str = PATH
    _bodies: dict[int, bytes] = field(default_factory=dict)
    _digests: dict[tuple[DigestName, int], str | None] = field(default_factory=dict)

    @property
    def fingerprint(self) -> Fingerprint:
        """As a file system would report it."""
        return Fingerprint(self.size, _MTIME_NS, _MTIME_NS, 1, 1)

    @property
    def entry(self) -> FileEntry:
        """The file in a listing."""
        return FileEntry(self.path, self.size, _MTIME_NS)

    def body(self, part: Part) -> bytes:
        """The bytes of a part."""
        body = self._bodies.get(part.size)
        if body is None:
            body = self._bodies[part.size] = (_BLOCK * (part.size // len(_BLOCK) + 1))[: part.size]
        return body

    def digest(self, name: DigestName, part: Part) -> str | None:
        """The digest of a part in the form of the protocol; None for `none`."""
        key = (name, part.size)
        if key not in self._digests:
            raw = _raw_digest(name, self.body(part))
            self._digests[key] = None if raw is None else b64encode(raw).decode()
        return self._digests[key]


def _raw_digest(name: DigestName, body: bytes) -> bytes | None:
    match name:
        case DigestName.MD5:
            return hashlib.md5(body, usedforsecurity=False).digest()
        case DigestName.SHA256:
            return hashlib.sha256(body).digest()
        case DigestName.CRC32:
            return zlib.crc32(body).to_bytes(4)
        case DigestName.NONE:
            return None
