"""The cache of parts: its content, its order of eviction and its capacity.

Rule: tests/integration shows that it is never stale.
"""

from control_plane.adapters.database.uploads.parts import NO_PARTS, PartsCache, new_stamp
from control_plane.domain.uploads.model import PartRecord

ONE = {1: PartRecord("a")}
TWO = {1: PartRecord("a"), 2: PartRecord("b")}


def test_the_stamp_of_no_parts_is_always_cached() -> None:
    assert new_stamp({}) == NO_PARTS
    assert PartsCache().get(NO_PARTS) == {}


def test_a_stamp_is_never_used_twice_and_fits_a_bigint() -> None:
    stamps = {new_stamp(ONE) for _ in range(10_000)}
    assert len(stamps) == 10_000
    assert all(0 < stamp < 2**63 for stamp in stamps)


def test_an_unknown_stamp_is_not_cached() -> None:
    assert PartsCache().get(17) is None


def test_the_least_recently_used_entries_are_evicted() -> None:
    cache = PartsCache(capacity=4)
    cache.put(11, TWO)
    cache.put(12, ONE)
    cache.put(13, ONE)
    assert cache.get(11) is TWO
    cache.put(14, ONE)
    assert [cache.get(stamp) for stamp in (11, 12, 13, 14)] == [TWO, None, ONE, ONE]


def test_an_entry_larger_than_the_cache_evicts_nothing() -> None:
    cache = PartsCache(capacity=1)
    cache.put(11, ONE)
    cache.put(12, TWO)
    assert cache.get(11) is ONE
    assert cache.get(12) is None


def test_putting_twice_counts_once() -> None:
    cache = PartsCache(capacity=3)
    for _ in range(5):
        cache.put(11, TWO)
    cache.put(12, ONE)
    assert cache.get(11) is TWO
    assert cache.get(12) is ONE
