"""One digest for a whole object, made of the digests of its parts, and its check while the object is read.

`md5:HEX` of an object of one part; `md5/PART_SIZE:HEX-PARTS` of several, the digest of the parts' raw digests. With MD5
it is the ETag of S3, with SHA-256 and CRC-32 S3's composite checksum in hexadecimal.

Rule: pure; bytes arrive in blocks.
"""

import hashlib
import re
import zlib
from typing import Final, Protocol, Self

from control_plane.domain.uploads.model import State, Upload
from schemas.digests import raw_digest
from schemas.values import DigestName

_TEXT: Final = re.compile(
    r"(md5|sha256|crc32)(?:/([1-9][0-9]{0,12}))?:([0-9a-f]{8,64})(?:-([1-9][0-9]{0,4}))?", re.ASCII
)


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def object_digest(upload: Upload) -> str | None:
    """The digest of the object that this upload proved; None before, and for parts without digests."""
    plan = upload.plan
    if upload.state is not State.COMPLETED or plan is None or upload.digest is DigestName.NONE:
        return None
    raws: list[bytes] = []
    for number in plan.numbers:
        record = upload.parts.get(number)
        raw = raw_digest(upload.digest, record.digest) if record is not None and record.digest else None
        if raw is None:
            return None
        raws.append(raw)
    if len(raws) == 1:
        return f"{upload.digest}:{raws[0].hex()}"
    whole = _hash(upload.digest)
    whole.update(b"".join(raws))
    return f"{upload.digest}/{plan.part_size}:{whole.digest().hex()}-{len(raws)}"


class ContentCheck:
    """Reads an object's bytes in order, and compares them with its digest."""

    def __init__(self, name: DigestName, part_size: int | None, expected: str) -> None:
        self._name = name
        self._part_size = part_size
        self._expected = expected
        self._whole = _hash(name)
        self._part = _hash(name)
        self._in_part = 0
        self._parts = 0

    @classmethod
    def of(cls, text: str) -> Self | None:
        """The check for a digest that `object_digest` made; None for another text."""
        found = _TEXT.fullmatch(text)
        if found is None or (found[2] is None) != (found[4] is None):
            return None
        expected = f"{found[3]}-{found[4]}" if found[4] else found[3]
        return cls(DigestName(found[1]), int(found[2]) if found[2] else None, expected)

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._part_size is None:
            self._whole.update(data)
            return
        while data:
            taken, data = data[: self._part_size - self._in_part], data[self._part_size - self._in_part :]
            self._part.update(taken)
            self._in_part += len(taken)
            if self._in_part == self._part_size:
                self._end_part()

    def agrees(self) -> bool:
        """Whether all that was taken is the object; nothing may be taken afterwards."""
        if self._part_size is None:
            return self._whole.digest().hex() == self._expected
        if self._in_part:
            self._end_part()
        return f"{self._whole.digest().hex()}-{self._parts}" == self._expected

    def _end_part(self) -> None:
        self._whole.update(self._part.digest())
        self._part, self._in_part = _hash(self._name), 0
        self._parts += 1


def _hash(name: DigestName) -> _Hash:
    match name:
        case DigestName.MD5:
            return hashlib.md5(usedforsecurity=False)
        case DigestName.SHA256:
            return hashlib.sha256()
        case _:
            return _Crc32()
