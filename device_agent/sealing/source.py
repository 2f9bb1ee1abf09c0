"""A sealed file as it is read: made of the file chunk by chunk, at any place, and never stored on the device.

Rule: no chunk leaves the device with two contents. Before a part is offered its chunks are digested, and a chunk that
is read to be sent is compared with that digest before it is encrypted. A change ends the attempt, and the next one has
another key.
"""

import binascii
import errno
import os
from hashlib import blake2b
from typing import Final

from msgspec.structs import replace

from device_agent.errors import FileRefused
from device_agent.files.source import Source, digest_of
from device_agent.sealing.seal import Encrypt, cipher_of
from device_agent.transfer.records import Seal
from schemas.parts import Part
from schemas.sealing.layout import CHUNK, TAG, chunks_of
from schemas.values import DigestName, ErrorCode, Fingerprint

_MARK: Final = 16
"""Bytes of the digest of one chunk of the file; 4 KiB for a part of 16 MiB."""

_SEALED_CHUNK: Final = CHUNK + TAG


class SealedSource:
    """One open file, read as if it were sealed. As a `Source`, any number of threads may share it."""

    def __init__(self, source: Source, seal: Seal) -> None:
        self.racy = source.racy
        self._source = source
        self._prefix = seal.header + seal.nonce
        self._encrypt: Encrypt = cipher_of(seal)
        self._marks: dict[int, bytes] = {}
        """The digests of the chunks of each part that was digested, by its number, until it is stored."""
        self.fingerprint = self._sealed(source.fingerprint)

    @property
    def path(self) -> str:
        """The path of the file."""
        return self._source.path

    @property
    def size(self) -> int:
        """Bytes in the sealed file."""
        return self.fingerprint.size

    def close(self) -> None:
        """Close the file after the last running read; may be repeated."""
        self._source.close()

    def now(self) -> Fingerprint:
        """The present fingerprint of the file, with the size that it would have sealed; `FileRefused`."""
        return self._sealed(self._source.now())

    def linked(self) -> bool:
        """Whether the path still leads to this file; `FileRefused`."""
        return self._source.linked()

    def gone(self) -> bool:
        """Whether the path leads nowhere."""
        return self._source.gone()

    def ends_at(self, size: int) -> bool:
        """Whether the file ends where it ended when it was opened; `size` is that of the sealed file."""
        return size == self.size and self._source.ends_at(self._source.size)

    def digest(self, offset: int, size: int, name: DigestName) -> str | None:
        """The digest of a range of the sealed file, to be compared with an earlier one. `FileRefused`."""
        reader = SealedPart(self, Part(0, offset, size), None)
        return digest_of(reader.read_into, self.path, offset, size, name)

    def digest_part(self, part: Part, name: DigestName) -> tuple[str | None, str]:
        """The digest of a sealed part, and one of the file's bytes in it; it can be sent after that. `FileRefused`."""
        reader = SealedPart(self, part, None)
        digest = digest_of(reader.read_into, self.path, part.offset, part.size, name)
        self._marks[part.number] = marks = reader.marks
        return digest, _content_of(marks)

    def part(self, part: Part, content: str) -> "SealedPart":
        """The part to be sent; `FileRefused` with `source_changed` unless the file still has the digested `content`."""
        if part.number not in self._marks:
            self.digest_part(part, DigestName.CRC32)
        marks = self._marks[part.number]
        if _content_of(marks) != content:
            raise _changed(self.path)
        return SealedPart(self, part, marks)

    def forget(self, part: Part) -> None:
        """The part is stored: it is not sent again."""
        self._marks.pop(part.number, None)

    def read_chunk(self, index: int, expected: bytes | None) -> tuple[bytes, bytes]:
        """A sealed chunk, and the digest of the file's bytes in it, which must be `expected`. `FileRefused`."""
        start = index * CHUNK
        plain = bytearray(min(CHUNK, self._source.size - start))
        if self._source.read_into(memoryview(plain), start) < len(plain):
            raise FileRefused(ErrorCode.SOURCE_CHANGED, f"{self.path!r} became shorter while it was read")
        mark = blake2b(plain, digest_size=_MARK).digest()
        if expected is not None and mark != expected:
            raise _changed(self.path)
        last = index + 1 == chunks_of(self._source.size)
        return self._encrypt(bytes(plain), index.to_bytes(11, "big") + bytes([last])), mark

    @property
    def prefix(self) -> bytes:
        """What stands before the first chunk."""
        return self._prefix

    def _sealed(self, found: Fingerprint) -> Fingerprint:
        return replace(found, size=len(self._prefix) + found.size + TAG * chunks_of(found.size))


class SealedPart:
    """The bytes of one part of a sealed file; for one thread.

    `marks` are the digests that its chunks must have; without them, those that were read. `file` is the whole.
    """

    def __init__(self, source: SealedSource, part: Part, marks: bytes | None) -> None:
        self.path = source.path
        self.file = source
        self._first = max(0, part.offset - len(source.prefix)) // _SEALED_CHUNK
        self._expected = marks
        self._read: dict[int, bytes] = {}
        self._chunk = (-1, b"")
        """The chunk that was sealed last: reads begin and end within chunks."""

    @property
    def marks(self) -> bytes:
        """The digests of the chunks that were read, one after another."""
        return b"".join(mark for _, mark in sorted(self._read.items()))

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` of the sealed file; returns the bytes read, fewer only at its end. `FileRefused`.

        `source_changed` when a chunk is not what was digested: nothing of it has been encrypted then.
        """
        done, prefix, end = 0, self.file.prefix, self.file.size
        while done < len(buffer) and offset + done < end:
            at = offset + done
            if at < len(prefix):
                piece = prefix[at : at + len(buffer) - done]
            else:
                index, within = divmod(at - len(prefix), _SEALED_CHUNK)
                piece = self._sealed(index)[within : within + len(buffer) - done]
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def send_to(self, _descriptor: int, _offset: int, _size: int) -> int:
        """The kernel cannot send what is sealed: always an `OSError`."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def _sealed(self, index: int) -> bytes:
        if self._chunk[0] != index:
            place = (index - self._first) * _MARK
            expected = None if self._expected is None else self._expected[place : place + _MARK]
            sealed, mark = self.file.read_chunk(index, expected)
            if expected is None:
                self._read[index] = mark
            self._chunk = (index, sealed)
        return self._chunk[1]


def _changed(path: str) -> FileRefused:
    """The file has other bytes than were digested."""
    return FileRefused(ErrorCode.SOURCE_CHANGED, f"{path!r} changed before a part of it was sealed")


def _content_of(marks: bytes) -> str:
    return binascii.b2a_base64(blake2b(marks, digest_size=32).digest(), newline=False).decode()
