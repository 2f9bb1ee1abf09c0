"""What an object is by its bytes: read in blocks, digested part by part as its receipt has them.

Rule: nothing of the object is kept.
"""

import hashlib
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any

from control_plane.cli.errors import Failed
from schemas.errors import SchemaError
from schemas.parts import PartPlan
from schemas.receipts.statement import Statement, decode_statement, subject_of
from schemas.values import DigestName


def statement_of(receipt: dict[str, Any]) -> Statement:
    """The statement in a receipt of REST; `Failed` when it has none."""
    try:
        return decode_statement(b64decode(receipt["envelope"]["payload"], validate=True))
    except (KeyError, TypeError, ValueError, SchemaError) as error:
        message = "the control plane's answer has no receipt that this version reads"
        raise Failed(message) from error


def measure(statement: Statement, blocks: Iterable[bytes]) -> dict[str, Any]:
    """Size and digest of these bytes, as `POST /uploads/{upload_id}/verify` takes them."""
    parts = statement.predicate.parts
    size, room, digests = 0, parts.size, []
    current = _Digest(parts.digest)
    for block in blocks:
        size, rest = size + len(block), memoryview(block)
        while rest:
            taken, rest = rest[:room], rest[room:]
            current.update(taken)
            room -= len(taken)
            if not room:
                digests.append(current.text())
                current, room = _Digest(parts.digest), parts.size
    if room < parts.size or not digests:
        digests.append(current.text())
    subject = subject_of("", parts.digest, PartPlan(size, parts.size), digests)
    return {"size": size, "digest": subject.digest}


class _Digest:
    """One digest of the wire, block by block."""

    def __init__(self, name: DigestName) -> None:
        self._name = name
        self._crc = 0
        self._hash = hashlib.md5(usedforsecurity=False) if name is DigestName.MD5 else hashlib.sha256()

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        if self._name is DigestName.CRC32:
            self._crc = zlib.crc32(data, self._crc)
        elif self._name is not DigestName.NONE:
            self._hash.update(data)

    def text(self) -> str | None:
        """Base64 of the raw digest; None where the upload has none."""
        if self._name is DigestName.NONE:
            return None
        raw = self._crc.to_bytes(4) if self._name is DigestName.CRC32 else self._hash.digest()
        return b64encode(raw).decode()
