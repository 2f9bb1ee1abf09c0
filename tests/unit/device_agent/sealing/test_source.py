"""A sealed file is made part by part, and opens with age; what changed is never sealed under the same key."""

import random
from pathlib import Path

import pytest

from device_agent.errors import FileRefused
from device_agent.files.roots import Roots
from device_agent.files.source import open_source
from device_agent.sealing.seal import draw_seal
from device_agent.sealing.source import SealedSource
from schemas.parts import MIB, Part, plan_parts
from schemas.sealing.layout import CHUNK, prefix_size, sealed_size
from schemas.values import DigestName, ErrorCode
from tests.support.age import Identity, new_identity


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    """Two recipients."""
    folder = tmp_path_factory.mktemp("age")
    return [new_identity(folder, name) for name in ("one", "two")]


def sealed(path: Path, identities: list[Identity]) -> SealedSource:
    """The file, sealed for all of them."""
    source = open_source(str(path), Roots(exact=str(path)))
    return SealedSource(source, draw_seal([one.recipient for one in identities]))


def sent(source: SealedSource, part: Part, content: str) -> bytes:
    """The bytes of a part as they leave, read in blocks that end within chunks."""
    reader, found = source.part(part, content), bytearray(part.size)
    for start in range(0, part.size, 250_001):
        reader.read_into(memoryview(found)[start : start + 250_001], part.offset + start)
    return bytes(found)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 11 * MIB + 7])
def test_parts_in_random_order_make_a_file_that_each_recipient_opens(
    tmp_path: Path, identities: list[Identity], size: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(random.randbytes(size))
    source = sealed(path, identities)
    assert source.size == sealed_size(size, 2)
    parts = random.sample(list(plan := plan_parts(source.size, 5 * MIB)), plan.total)
    contents = {part: source.digest_part(part, DigestName.SHA256)[1] for part in parts}
    whole = bytearray(source.size)
    for part in parts:
        whole[part.offset : part.offset + part.size] = sent(source, part, contents[part])
    assert [one.opened(bytes(whole)) == path.read_bytes() for one in identities] == [True, True]


def test_a_chunk_that_changed_after_its_part_was_digested_is_not_sealed_again(
    tmp_path: Path, identities: list[Identity]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * CHUNK))
    source = sealed(path, identities)
    part = Part(1, 0, source.size)
    _, content = source.digest_part(part, DigestName.MD5)
    reader = source.part(part, content)
    with path.open("r+b") as file:
        file.seek(2 * CHUNK)
        file.write(b"changed")
    unchanged = memoryview(bytearray(prefix_size(2) + CHUNK))
    assert reader.read_into(unchanged, 0) == len(unchanged)
    with pytest.raises(FileRefused) as refused:
        reader.read_into(memoryview(bytearray(part.size)), 0)
    assert refused.value.code is ErrorCode.SOURCE_CHANGED


def test_a_part_is_compared_with_the_journal_after_the_file_was_opened_again(
    tmp_path: Path, identities: list[Identity]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * CHUNK))
    seal = draw_seal([identities[0].recipient])
    first = SealedSource(open_source(str(path), Roots(exact=str(path))), seal)
    part = Part(1, 0, first.size)
    _, content = first.digest_part(part, DigestName.MD5)
    again = SealedSource(open_source(str(path), Roots(exact=str(path))), seal)
    assert sent(again, part, content) == sent(first, part, content)
    path.write_bytes(b"x" + bytes(3 * CHUNK - 1))
    changed = SealedSource(open_source(str(path), Roots(exact=str(path))), seal)
    with pytest.raises(FileRefused) as refused:
        changed.part(part, content)
    assert refused.value.code is ErrorCode.SOURCE_CHANGED


def test_the_key_is_in_no_text_of_a_seal(identities: list[Identity]) -> None:
    seal = draw_seal([identities[0].recipient])
    assert repr(seal.file_key) not in repr(seal)
    assert repr(seal) == "Seal(…)"
