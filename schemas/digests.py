"""Digests on the wire: base64 of the raw bytes, exactly as the request header carries them.

Rule: one text per digest, so that equal digests are equal strings.
"""

from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from typing import Final

from schemas.values import DigestName

DIGEST_BYTES: Final = {DigestName.MD5: 16, DigestName.SHA256: 32, DigestName.CRC32: 4}
"""Length of each raw digest."""


def raw_digest(name: DigestName, digest: str) -> bytes | None:
    """The bytes behind a digest from the wire; None when it is not base64 of a digest of this kind.

    >>> raw_digest(DigestName.CRC32, "AAAAAQ==") == bytes((0, 0, 0, 1))
    True
    >>> raw_digest(DigestName.MD5, "AAAAAQ==") is None
    True
    """
    try:
        raw = b64decode(digest, validate=True)
    except (BadBase64, ValueError):
        return None
    return raw if len(raw) == DIGEST_BYTES.get(name) and b64encode(raw).decode() == digest else None
