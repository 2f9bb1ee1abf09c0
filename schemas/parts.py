"""The part plan: how a file of a known size is cut, computed alike by both sides.

Rule: pure arithmetic. The limits are Amazon S3's ("Multipart upload limits", S3 user guide).
"""

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from schemas.errors import SchemaError

MIB: Final = 1024 * 1024
MAX_PARTS: Final = 10_000
MIN_CHUNK_SIZE: Final = 5 * MIB
MAX_PART_SIZE: Final = 5 * 1024 * MIB
MAX_FILE_SIZE: Final = MAX_PARTS * MAX_PART_SIZE
"""48.8 TiB: the largest object that S3 assembles."""


class Part(Struct, frozen=True):
    """One slice of the file: `size` bytes from `offset`; `number` counts from 1."""

    number: int
    offset: int
    size: int


class PartPlan(Struct, frozen=True):
    """All parts of one file. Every part but the last is `part_size` bytes long.

    A file of 0 bytes has one part of 0 bytes.
    """

    file_size: int
    part_size: int

    @property
    def total(self) -> int:
        """How many parts there are: 1 to 10,000."""
        return max(1, -(-self.file_size // self.part_size))

    @property
    def numbers(self) -> range:
        """Every part number, ascending."""
        return range(1, self.total + 1)

    def part(self, number: int) -> Part:
        """The slice behind one part number; `SchemaError` when the file has no such part."""
        if number not in self.numbers:
            message = f"part {number} does not exist: the file has parts 1 to {self.total}"
            raise SchemaError(message)
        offset = (number - 1) * self.part_size
        return Part(number, offset, min(self.part_size, self.file_size - offset))

    def size_of(self, numbers: Iterable[int]) -> int:
        """Bytes in these parts together."""
        return sum(self.part(number).size for number in numbers)

    def __iter__(self) -> Iterator[Part]:
        return (self.part(number) for number in self.numbers)


def plan_parts(file_size: int, chunk_size: int) -> PartPlan:
    """Cut a file of `file_size` bytes into parts of `chunk_size` bytes, larger where S3's part count demands it.

    `part_size = max(chunk_size, ceil(file_size / 10000) rounded up to a MiB)`. `SchemaError` for a chunk below
    5 MiB or above 5 GiB, a negative size, and a file above 48.8 TiB.

    >>> plan_parts(10 * MIB, 5 * MIB).total
    2
    >>> plan_parts(0, 5 * MIB).part(1)
    Part(number=1, offset=0, size=0)
    >>> plan_parts(100_000 * MIB, 5 * MIB).part_size // MIB
    10
    """
    require_chunk_size(chunk_size)
    _require_file_size(file_size)
    smallest = -(-file_size // MAX_PARTS)
    return PartPlan(file_size, max(chunk_size, -(-smallest // MIB) * MIB))


def plan_as_given(file_size: int, chunk_size: int) -> PartPlan:
    """The plan of a pre-granted command: its `chunk_size` is used as it is, for the URLs are cut to it already.

    `SchemaError` as for `plan_parts`, and when the file would need more than 10,000 parts.
    """
    plan = PartPlan(file_size, require_chunk_size(chunk_size))
    _require_file_size(file_size)
    if plan.total > MAX_PARTS:
        message = f"{file_size} bytes in chunks of {chunk_size} make {plan.total} parts; at most {MAX_PARTS} exist"
        raise SchemaError(message)
    return plan


def require_chunk_size(chunk_size: int) -> int:
    """Return `chunk_size` when S3 takes parts of it; `SchemaError` outside 5 MiB to 5 GiB."""
    if not MIN_CHUNK_SIZE <= chunk_size <= MAX_PART_SIZE:
        message = f"chunk_size {chunk_size} is outside {MIN_CHUNK_SIZE} to {MAX_PART_SIZE} bytes"
        raise SchemaError(message)
    return chunk_size


def _require_file_size(file_size: int) -> None:
    if not 0 <= file_size <= MAX_FILE_SIZE:
        message = f"a file of {file_size} bytes cannot be uploaded: S3 takes 0 to {MAX_FILE_SIZE}"
        raise SchemaError(message)


def to_ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Part numbers as inclusive ranges, ascending and apart.

    >>> to_ranges([5, 1, 2, 3])
    ((1, 3), (5, 5))
    """
    ranges: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return tuple(ranges)


def from_ranges(ranges: Iterable[tuple[int, int]]) -> frozenset[int]:
    """The part numbers in inclusive ranges; numbers S3 does not have (outside 1 to 10,000) are left out.

    >>> sorted(from_ranges([(1, 3), (5, 5)]))
    [1, 2, 3, 5]
    """
    numbers: set[int] = set()
    reached = 0
    for first, last in sorted(ranges):  # ascending, so that ranges which overlap a thousand times cost no more than one
        numbers.update(range(max(first, reached + 1), min(last, MAX_PARTS) + 1))
        reached = max(reached, min(last, MAX_PARTS))
    return frozenset(numbers)
