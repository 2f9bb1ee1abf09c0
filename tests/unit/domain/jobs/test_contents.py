"""The digest of a whole object, and its check while the object is read."""

import hashlib
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.domain.jobs.contents import ContentCheck, object_digest
from control_plane.domain.uploads.model import PartRecord, State, Upload
from schemas.parts import MIB
from schemas.values import DigestName
from tests.support.fake_services import an_upload

HASHES = {
    DigestName.MD5: lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
    DigestName.SHA256: lambda data: hashlib.sha256(data).digest(),
    DigestName.CRC32: lambda data: zlib.crc32(data).to_bytes(4, "big"),
}
SMALL, LARGE = b"report" * 3, bytes(range(256)) * (11 * MIB // 256)


def completed(content: bytes, name: DigestName) -> Upload:
    """A proven upload of this content in parts of 5 MiB."""
    pieces = [content[at : at + 5 * MIB] for at in range(0, len(content), 5 * MIB)] or [b""]
    parts = {n: PartRecord(b64encode(HASHES[name](piece)).decode(), "e") for n, piece in enumerate(pieces, start=1)}
    return an_upload(
        state=State.COMPLETED, digest=name, file_size=len(content), part_size=5 * MIB, chunk_size=5 * MIB, parts=parts
    )


@pytest.mark.parametrize("name", list(HASHES))
@pytest.mark.parametrize("content", [b"", SMALL, LARGE])
def test_the_object_is_the_file_and_nothing_else(name: DigestName, content: bytes) -> None:
    """One byte more, less or another is seen."""
    text = object_digest(completed(content, name))
    assert text is not None
    for data, same in ((content, True), (content + b"x", False), (content[:-1] + b"\x01", False)):
        check = ContentCheck.of(text)
        assert check is not None
        check.update(data)
        assert check.agrees() is same


@given(st.lists(st.integers(1, 7 * MIB), max_size=4))
def test_the_size_of_the_blocks_does_not_matter(cuts: list[int]) -> None:
    """Blocks need not end where parts end."""
    check = ContentCheck.of(object_digest(completed(LARGE, DigestName.CRC32)) or "")
    assert check is not None
    at = 0
    for cut in cuts:
        check.update(LARGE[at : at + cut])
        at += cut
    check.update(LARGE[at:])
    assert check.agrees()


def test_with_md5_it_is_the_etag_of_s3() -> None:
    """The MD5 of the parts' MD5, and the number of parts."""
    raws = b"".join(HASHES[DigestName.MD5](LARGE[at : at + 5 * MIB]) for at in range(0, len(LARGE), 5 * MIB))
    etag = f"{hashlib.md5(raws, usedforsecurity=False).hexdigest()}-3"
    assert object_digest(completed(LARGE, DigestName.MD5)) == f"md5/{5 * MIB}:{etag}"


def test_an_upload_without_proven_parts_has_no_digest() -> None:
    """Nothing is claimed of it."""
    proven = completed(SMALL, DigestName.MD5)
    assert object_digest(replace(proven, state=State.COMPLETING)) is None
    assert object_digest(replace(proven, digest=DigestName.NONE)) is None
    assert object_digest(replace(proven, parts={})) is None
    assert object_digest(replace(proven, parts={1: PartRecord(None, "e")})) is None


@pytest.mark.parametrize(
    "text", ["", "md5", "md5:xyz", "md5/5:aabbccdd", "md5:aabbccdd-2", "sha1:aabbccdd", "md5/0:aabbccdd-1"]
)
def test_another_text_is_no_digest(text: str) -> None:
    """A newer control plane may answer with a form that this version does not know."""
    assert ContentCheck.of(text) is None
