"""Whether a key's paths cover the pattern of a listing: no path that it matches may lie outside.

Rule: the expected result is that of single paths, by the automaton that lists and excludes files.
"""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.trust.covering import covers_pattern
from schemas.errors import SchemaError
from schemas.globs import Globs

components = st.lists(
    st.sampled_from(["a", "b", "-", ".", "*", "?", "[ab]", "[!a]", "[a-c]", "[]", "[", "[!]a]", "\\"]),
    min_size=1,
    max_size=4,
).map("".join)
patterns = st.lists(components | st.just("**"), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
relative = st.builds(lambda pattern: pattern.lstrip("/"), patterns)
names = st.text("abc-.[]\\", min_size=1, max_size=4).filter(lambda name: name not in {".", ".."})
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))

SHORT = ["".join(letters) for size in (1, 2, 3) for letters in itertools.product("ab.", repeat=size)]
FILES = [f"/{name}" for name in SHORT] + [f"/{folder}/{name}" for folder in ("a", "b", "ab") for name in SHORT]


def is_valid(*several: str) -> bool:
    return not any(part in {"", ".", ".."} for pattern in several for part in pattern.strip("/").split("/"))


@given(st.lists(patterns | relative, min_size=1, max_size=3), patterns, st.lists(paths, max_size=20))
def test_whatever_a_covered_pattern_matches_is_covered(allowed: list[str], asked: str, some: list[str]) -> None:
    if not is_valid(*allowed, asked) or not covers_pattern(allowed, asked):
        return
    wanted, keys = Globs((asked,)), Globs.excluding(allowed)
    assert [path for path in (*some, *FILES) if wanted.matches(path) and not keys.covers(path)] == []


@given(st.lists(patterns, min_size=1, max_size=3))
def test_patterns_cover_themselves_and_what_is_below(allowed: list[str]) -> None:
    if is_valid(*allowed):
        assert all(covers_pattern(allowed, one) and covers_pattern(allowed, f"{one}/x/*") for one in allowed)


@pytest.mark.parametrize(
    ("allowed", "asked", "covered"),
    [
        ("/data/a?", "/data/a*", False),
        ("/data/a?", "/data/a?", True),
        ("/data/a*", "/data/a?", True),
        ("/other", "/data/*", False),
        ("/data/*", "/data/?*", True),
        ("/data/?*", "/data/*", True),
        ("/data/*?", "/data/?*", True),
        ("/data/[ab]", "/data/[a-b]", True),
        ("/data/[ab]", "/data/[a-c]", False),
        ("/data/[!a]", "/data/[bc]", True),
        ("/data/[!a]", "/data/?", False),
        ("/data/[a-c]", "/data/b", True),
        ("/data/*.csv", "/data/x*.csv", True),
        ("/data/*.csv", "/data/*.cs?", False),
        ("/data/[]]", "/data/]", True),
        ("/data/[[]x", "/data/[x", True),
        ("/data", "/data/**", True),
        ("/data/*", "/data/*/*", True),
        ("/data/*/*", "/data/**", False),
        ("/data/**/a", "/data/**/b/**/a", True),
        ("/data/**/b/**/a", "/data/**/a", False),
        ("*.csv", "/data/**/*.csv", True),
        ("/**", "/**", True),
        ("/**/*", "/**", True),
        ("/a/**/**/b", "/a/b", True),
        ("/data/\U0010ffff", "/data/?", False),
        ("/data/\u00e9", "/data/[\u00e8-\u00ea]", False),
    ],
)
def test_one_pattern_covers_another(allowed: str, asked: str, covered: bool) -> None:  # noqa: FBT001
    assert covers_pattern([allowed], asked) is covered


def test_several_patterns_cover_together_what_none_covers_alone() -> None:
    assert covers_pattern(["/data/a*", "/data/[!a]*"], "/data/*")
    assert not covers_pattern(["/data/a*", "/data/[!ab]*"], "/data/*")
    assert not covers_pattern([], "/data/*")


def test_a_comparison_that_would_take_too_long_covers_nothing() -> None:
    """For each length the last letters count: as many states as there are subsets of twenty places."""
    asked = "/data/" + "*a" + "?" * 20
    assert not covers_pattern(["/data/*a" + "?" * 19 + "[!b]"], asked + "*")
    assert covers_pattern(["/data/**"], asked)


@pytest.mark.parametrize("pattern", ["data/*", "/data/../*", "/data//*"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(SchemaError):
        covers_pattern(["/data/**"], pattern)
