"""What an object's ETag and checksums must be, computed from the digests of its parts alone.

Rule: pure arithmetic; digests are base64 of the raw bytes, as on the wire (protocol.md section 3). The probe finds out
whether an object store's ETag is an MD5; under KMS or a customer's key it never is ("Checking object integrity", S3
user guide).
"""

import hashlib
import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from functools import lru_cache, reduce
from typing import Final

from schemas.digests import raw_digest
from schemas.values import DigestName

_POLYNOMIAL: Final = 0xEDB88320
_ONE: Final = 1 << 31
_X: Final = 1 << 30
_BITS_A_BYTE: Final = 3  # as a power of two


def object_etag(md5: str) -> str:
    """The ETag, without quotes, of an object that was stored by one PutObject.

    >>> object_etag("1B2M2Y8AsgTpgAmY7PhCfg==")
    'd41d8cd98f00b204e9800998ecf8427e'
    """
    return _raw(DigestName.MD5, md5).hex()


def multipart_etag(md5s: Sequence[str]) -> str:
    """The ETag, without quotes, of an object that was assembled from parts with these MD5s, in order of their numbers.

    >>> multipart_etag(["1B2M2Y8AsgTpgAmY7PhCfg=="])
    '59adb24ef3cdbe0297f05b395827453f-1'
    """
    joined = hashlib.md5(_joined(DigestName.MD5, md5s), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(md5s)}"


def composite_checksum(name: DigestName, digests: Sequence[str]) -> str:
    """The checksum of checksums that S3 shows for an upload of type COMPOSITE: the only type that SHA-256 has."""
    joined = _joined(name, digests)
    match name:
        case DigestName.SHA256:
            raw = hashlib.sha256(joined).digest()
        case DigestName.CRC32:
            raw = zlib.crc32(joined).to_bytes(4)
        case _:
            message = f"S3 has no composite {name} checksum"
            raise ValueError(message)
    return f"{b64encode(raw).decode()}-{len(digests)}"


def full_object_crc32(parts: Iterable[tuple[str, int]]) -> str:
    """The CRC-32 of the whole object from each part's CRC-32 and size (bytes), in order of their numbers."""
    pairs = ((int.from_bytes(_raw(DigestName.CRC32, digest)), size) for digest, size in parts)
    combined = reduce(lambda whole, part: combine_crc32(whole, *part), pairs, 0)
    return b64encode(combined.to_bytes(4)).decode()


def combine_crc32(first: int, second: int, second_size: int) -> int:
    """The CRC-32 of two byte strings joined, from their CRCs and the length of the second.

    >>> combine_crc32(zlib.crc32(b"back"), zlib.crc32(b"haul"), 4) == zlib.crc32(b"backhaul")
    True
    """
    return _multiply(_shift_by(second_size), first) ^ second


@lru_cache(maxsize=64)
def _shift_by(size: int) -> int:
    """`x ** (8 * size)` modulo the CRC's polynomial: all parts of a file but one have the same size."""
    power, square = _ONE, reduce(lambda value, _: _multiply(value, value), range(_BITS_A_BYTE), _X)
    while size:
        if size & 1:
            power = _multiply(square, power)
        square = _multiply(square, square)
        size >>= 1
    return power


def _multiply(left: int, right: int) -> int:
    """The product of two polynomials over GF(2) modulo the CRC's, in its reflected bit order (zlib, `multmodp`)."""
    product, mask = 0, _ONE
    while mask:
        if left & mask:
            product ^= right
        right = (right >> 1) ^ _POLYNOMIAL if right & 1 else right >> 1
        mask >>= 1
    return product


def _joined(name: DigestName, digests: Sequence[str]) -> bytes:
    return b"".join(_raw(name, digest) for digest in digests)


def _raw(name: DigestName, digest: str) -> bytes:
    raw = raw_digest(name, digest)
    if raw is None:
        message = f"not a {name} digest in base64: {digest!r}"
        raise ValueError(message)
    return raw
