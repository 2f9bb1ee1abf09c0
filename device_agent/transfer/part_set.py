"""A set of part numbers, one bit each.

Rule: immutable; 10,000 parts take 1.3 KB, so an upload's state can be copied at every event.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Self

from msgspec import Struct

from schemas.parts import from_ranges, to_ranges


class PartSet(Struct, frozen=True):
    """Part numbers from 1 on.

    >>> parts = PartSet.of([1, 2, 5])
    >>> parts.ranges(), parts.first_missing(), 5 in parts, len(parts)
    (((1, 2), (5, 5)), 3, True, 3)
    """

    bits: int = 0

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Self:
        """The set of these numbers."""
        bits = 0
        for number in numbers:
            bits |= 1 << (number - 1)
        return cls(bits)

    @classmethod
    def of_ranges(cls, ranges: Iterable[tuple[int, int]]) -> Self:
        """The set of all numbers in inclusive ranges; numbers beyond those of S3 are left out."""
        return cls.of(from_ranges(ranges))

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The members as inclusive ranges, ascending and disjoint."""
        return to_ranges(self)

    def first_missing(self) -> int:
        """The lowest number from 1 on that is not a member."""
        return (~self.bits & (self.bits + 1)).bit_length()

    def __contains__(self, number: int) -> bool:
        return bool(self.bits >> (number - 1) & 1)

    def __or__(self, other: Self) -> Self:
        return type(self)(self.bits | other.bits)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.bits & ~other.bits)

    def __and__(self, other: Self) -> Self:
        return type(self)(self.bits & other.bits)

    def __iter__(self) -> Iterator[int]:
        bits = self.bits
        while bits:
            lowest = bits & -bits
            yield lowest.bit_length()
            bits ^= lowest

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __bool__(self) -> bool:
        return bool(self.bits)


NO_PARTS: Final = PartSet()
