"""What ETags and checksums must be, against hashlib and zlib on real bytes.

Rule: the expectation is computed from the whole file, the answer from the digests of its parts.
"""

import hashlib
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.services.uploads import checksums as proof_arithmetic
from control_plane.services.uploads.checksums import (
    combine_crc32,
    composite_checksum,
    full_object_crc32,
    multipart_etag,
    object_etag,
)
from schemas.digests import raw_digest
from schemas.values import DigestName

PARTS = st.lists(st.binary(max_size=200), min_size=1, max_size=12)


def b64(raw: bytes) -> str:
    return b64encode(raw).decode()


def md5(data: bytes) -> str:
    return b64(hashlib.md5(data, usedforsecurity=False).digest())


def crc32(data: bytes) -> str:
    return b64(zlib.crc32(data).to_bytes(4))


@given(PARTS)
def test_the_crc32_of_an_object_is_combined_from_its_parts(parts: list[bytes]) -> None:
    assert full_object_crc32((crc32(part), len(part)) for part in parts) == crc32(b"".join(parts))


@given(st.binary(), st.binary())
def test_two_crc32s_combine(first: bytes, second: bytes) -> None:
    combined = combine_crc32(zlib.crc32(first), zlib.crc32(second), len(second))
    assert combined == zlib.crc32(first + second)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**45), st.integers(0, 2**45))
def test_combining_is_independent_of_the_part_boundaries(one: int, two: int, size: int, more: int) -> None:
    """Sizes too large to hash in a test: three pieces, combined from either end."""
    left = combine_crc32(combine_crc32(one, two, size), 7, more)
    right = combine_crc32(one, combine_crc32(two, 7, more), size + more)
    assert left == right


@given(st.binary())
def test_the_etag_of_one_put_is_the_md5(data: bytes) -> None:
    assert object_etag(md5(data)) == hashlib.md5(data, usedforsecurity=False).hexdigest()


@given(PARTS)
def test_the_etag_of_parts_is_the_md5_of_their_md5s(parts: list[bytes]) -> None:
    joined = b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in parts)
    whole = hashlib.md5(joined, usedforsecurity=False).hexdigest()
    assert multipart_etag([md5(part) for part in parts]) == f"{whole}-{len(parts)}"


@given(PARTS)
def test_composite_checksums_are_digests_of_digests(parts: list[bytes]) -> None:
    shas = [hashlib.sha256(part).digest() for part in parts]
    crcs = [zlib.crc32(part).to_bytes(4) for part in parts]
    sha = composite_checksum(DigestName.SHA256, [b64(raw) for raw in shas])
    crc = composite_checksum(DigestName.CRC32, [b64(raw) for raw in crcs])
    assert sha == f"{b64(hashlib.sha256(b''.join(shas)).digest())}-{len(parts)}"
    assert crc == f"{crc32(b''.join(crcs))}-{len(parts)}"


def test_ten_thousand_parts_need_one_shift_for_each_size() -> None:
    proof_arithmetic._shift_by.cache_clear()
    full_object_crc32([("AAAAAQ==", 5 << 20)] * 9_999 + [("AAAAAQ==", 1)])
    assert proof_arithmetic._shift_by.cache_info().misses == 2


@pytest.mark.parametrize(
    "wrong", ["", "AAAA", "AAAAAQ", "AAAAAQ==\n", "AAAAAR==\r\nx: y", "AAAAAf==", "é", "AAAA AQ=="]
)
def test_a_text_that_is_no_digest_is_refused(wrong: str) -> None:
    """A digest becomes a header: only canonical base64 of the right length is accepted."""
    assert raw_digest(DigestName.CRC32, wrong) is None


def test_there_is_no_digest_named_none() -> None:
    assert raw_digest(DigestName.NONE, "") is None
    with pytest.raises(ValueError, match="no composite"):
        composite_checksum(DigestName.MD5, [md5(b"")])
    with pytest.raises(ValueError, match="not a md5 digest"):
        object_etag("nonsense")
