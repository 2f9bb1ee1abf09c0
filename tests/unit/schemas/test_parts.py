"""The part plan: every byte in exactly one part, within S3's limits, and the same on both sides.

Rule: the bounds are S3's and the protocol's, written out as numbers; parts are added up, not taken on trust.
"""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import SchemaError
from schemas.parts import (
    MAX_FILE_SIZE,
    MAX_PART_SIZE,
    MAX_PARTS,
    MIB,
    MIN_CHUNK_SIZE,
    Part,
    from_ranges,
    plan_as_given,
    plan_parts,
    to_ranges,
)

FIVE = 5 * 2**20
TIB = 2**40

sizes = st.integers(0, MAX_FILE_SIZE) | st.integers(0, 200 * MIB)
chunks = st.integers(MIN_CHUNK_SIZE, MAX_PART_SIZE) | st.integers(MIN_CHUNK_SIZE, 64 * MIB)
numbers = st.frozensets(st.integers(1, MAX_PARTS), max_size=200)


def test_the_limits_are_those_of_s3() -> None:
    assert (MIN_CHUNK_SIZE, MAX_PART_SIZE, MAX_PARTS) == (5_242_880, 5_368_709_120, 10_000)
    assert round(MAX_FILE_SIZE / TIB, 1) == 48.8


@given(file_size=sizes, chunk_size=chunks)
@example(file_size=0, chunk_size=FIVE)
@example(file_size=MAX_FILE_SIZE, chunk_size=FIVE)
def test_every_byte_is_in_exactly_one_part(file_size: int, chunk_size: int) -> None:
    parts = list(plan_parts(file_size, chunk_size))
    ends = [0, *(part.offset + part.size for part in parts)]
    assert [part.offset for part in parts] == ends[:-1]
    assert ends[-1] == file_size
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))


@given(file_size=sizes, chunk_size=chunks)
def test_part_sizes_are_accepted_by_s3(file_size: int, chunk_size: int) -> None:
    plan = plan_parts(file_size, chunk_size)
    *full, last = plan
    assert 1 <= plan.total == len(full) + 1 <= MAX_PARTS
    assert all(part.size == plan.part_size for part in full)
    assert chunk_size <= plan.part_size <= MAX_PART_SIZE
    assert 0 <= last.size <= plan.part_size
    assert last.size > 0 or file_size == 0


@given(file_size=sizes, chunk_size=chunks)
def test_a_part_size_is_the_chunk_size_or_whole_mebibytes(file_size: int, chunk_size: int) -> None:
    part_size = plan_parts(file_size, chunk_size).part_size
    if part_size != chunk_size:
        assert part_size % MIB == 0
        assert (part_size - MIB) * MAX_PARTS < file_size <= part_size * MAX_PARTS


@given(file_size=sizes, more=st.integers(0, TIB), chunk_size=chunks)
def test_a_larger_file_never_has_smaller_parts(file_size: int, more: int, chunk_size: int) -> None:
    larger = min(file_size + more, MAX_FILE_SIZE)
    assert plan_parts(file_size, chunk_size).part_size <= plan_parts(larger, chunk_size).part_size


@given(file_size=sizes, chunk_size=chunks, larger=chunks)
def test_larger_chunks_never_make_more_parts(file_size: int, chunk_size: int, larger: int) -> None:
    low, high = sorted((chunk_size, larger))
    assert plan_parts(file_size, low).total >= plan_parts(file_size, high).total


@pytest.mark.parametrize(
    ("file_size", "sizes_of_parts"),
    [
        (0, [0]),
        (1, [1]),
        (FIVE - 1, [FIVE - 1]),
        (FIVE, [FIVE]),
        (FIVE + 1, [FIVE, 1]),
        (2 * FIVE, [FIVE, FIVE]),
        (300 * FIVE + 7, [FIVE] * 300 + [7]),
        (MAX_PARTS * FIVE, [FIVE] * MAX_PARTS),
        (MAX_FILE_SIZE, [MAX_PART_SIZE] * MAX_PARTS),
    ],
    ids=["0", "1", "5 MiB - 1", "5 MiB", "5 MiB + 1", "10 MiB", "hundreds", "10,000", "48.8 TiB"],
)
def test_files_at_the_limits(file_size: int, sizes_of_parts: list[int]) -> None:
    assert [part.size for part in plan_parts(file_size, FIVE)] == sizes_of_parts


def test_one_byte_beyond_ten_thousand_chunks_makes_parts_a_mebibyte_larger() -> None:
    plan = plan_parts(MAX_PARTS * FIVE + 1, FIVE)
    assert (plan.part_size, plan.total) == (6 * MIB, 8334)


@pytest.mark.parametrize("file_size", [-1, MAX_FILE_SIZE + 1, 10**30])
def test_a_file_that_s3_refuses_has_no_plan(file_size: int) -> None:
    for plan in (plan_parts, plan_as_given):
        with pytest.raises(SchemaError):
            plan(file_size, MAX_PART_SIZE)


@pytest.mark.parametrize("chunk_size", [-1, 0, FIVE - 1, MAX_PART_SIZE + 1])
def test_a_chunk_size_that_s3_refuses_has_no_plan(chunk_size: int) -> None:
    for plan in (plan_parts, plan_as_given):
        with pytest.raises(SchemaError, match="chunk_size"):
            plan(1, chunk_size)


@given(file_size=sizes, chunk_size=chunks)
@example(file_size=MAX_PARTS * FIVE, chunk_size=FIVE)
@example(file_size=MAX_PARTS * FIVE + 1, chunk_size=FIVE)
def test_a_given_chunk_size_is_used_as_it_is(file_size: int, chunk_size: int) -> None:
    if file_size > MAX_PARTS * chunk_size:
        with pytest.raises(SchemaError, match="at most 10000"):
            plan_as_given(file_size, chunk_size)
    else:
        assert plan_as_given(file_size, chunk_size).part_size == chunk_size


@given(file_size=sizes, chunk_size=chunks, wanted=st.data())
def test_sizes_add_up(file_size: int, chunk_size: int, wanted: st.DataObject) -> None:
    plan = plan_parts(file_size, chunk_size)
    some = wanted.draw(st.sets(st.integers(1, plan.total), max_size=9))
    assert plan.size_of(some) == sum(part.size for part in plan if part.number in some)
    assert plan.size_of(plan.numbers) == file_size


@pytest.mark.parametrize("number", [-1, 0, 3, MAX_PARTS + 1])
def test_a_missing_part_is_named_in_the_error(number: int) -> None:
    plan = plan_parts(FIVE + 1, FIVE)
    assert plan.part(2) == Part(2, FIVE, 1)
    with pytest.raises(SchemaError, match="parts 1 to 2"):
        plan.part(number)


@given(some=numbers)
def test_ranges_round_trip(some: frozenset[int]) -> None:
    assert from_ranges(to_ranges(some)) == some


@given(some=st.lists(st.integers(1, 50)))
def test_ranges_are_ascending_and_disjoint(some: list[int]) -> None:
    ranges = to_ranges(some)
    assert all(first <= last for first, last in ranges)
    assert all(earlier[1] + 1 < later[0] for earlier, later in pairwise(ranges))


@given(ranges=st.lists(st.tuples(st.integers(-60, 60), st.integers(-60, 60)), max_size=8))
def test_ranges_may_overlap_and_be_reversed(ranges: list[tuple[int, int]]) -> None:
    assert from_ranges(ranges) == {n for first, last in ranges for n in range(first, last + 1) if n >= 1}


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], set()),
        ([(9_999, 10**30)], {9_999, 10_000}),
        ([(-(10**30), 1)], {1}),
        ([(1, MAX_PARTS)] * 13_000, set(range(1, MAX_PARTS + 1))),
    ],
    ids=["none", "beyond", "before", "a whole message of them"],
)
def test_hostile_ranges_cost_no_more_than_honest_ones(ranges: Iterable[tuple[int, int]], expected: set[int]) -> None:
    assert from_ranges(ranges) == expected
