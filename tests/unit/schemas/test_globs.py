"""Patterns of paths: what matches, what is excluded, and that many patterns are one automaton.

Rule: the expected result of several patterns is that of each alone; of one pattern, a literal.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SchemaError
from schemas.globs import MAX_COMPONENTS, Globs, fixed_folder

names = st.sampled_from(["a", "b", "ab", ".a", "a.log"])
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
patterns = st.lists(st.sampled_from(["a", "*", "**", "a*", "?", "[ab]", ".*"]), min_size=1, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/data/*.log", "/data/a.log", True),
        ("/data/*.log", "/data/sub/a.log", False),
        ("/data/**/*.log", "/data/a.log", True),
        ("/data/**/*.log", "/data/x/y/a.log", True),
        ("/data/**/*.log", "/data/.x/a.log", False),
        ("/data/**/.x/*.log", "/data/y/.x/a.log", True),
        ("/data/*", "/data/.hidden", False),
        ("/data/.*", "/data/.hidden", True),
        ("/data/[ab]", "/data/b", True),
        ("/data/**", "/data", True),
    ],
)
def test_a_pattern_matches(pattern: str, path: str, matches: bool) -> None:  # noqa: FBT001
    assert Globs((pattern,)).matches(path) is matches


@given(st.lists(patterns, max_size=5), paths)
def test_several_patterns_match_what_one_of_them_matches(several: list[str], path: str) -> None:
    assert Globs(several).matches(path) is any(Globs((one,)).matches(path) for one in several)


@given(patterns, paths)
def test_what_a_root_can_hold_is_entered(pattern: str, path: str) -> None:
    glob = Globs((pattern,))
    root, _, name = path.rpartition("/")
    if root and glob.matches(path):
        assert glob.accepts(glob.step(glob.enter(root), name))


@pytest.mark.parametrize(
    ("pattern", "path", "left_out"),
    [
        ("debug.log", "/a/b/debug.log", True),
        ("debug.log", "/a/b/debug.log.1", False),
        ("**/debug.log", "/.a/debug.log", True),
        ("cache", "/a/cache/b/c", True),
        ("/a/*", "/a/.b/c", True),
        ("/a/*", "/b/a/c", False),
        ("a/b", "/x/a/b", True),
    ],
)
def test_an_excluded_folder_excludes_what_is_in_it(pattern: str, path: str, left_out: bool) -> None:  # noqa: FBT001
    assert Globs.excluding((pattern,)).covers(path) is left_out


@pytest.mark.parametrize("pattern", ["data/*", "", "/a//b", "/../x", "/a/", "/" + "a/" * MAX_COMPONENTS + "a", "/\0"])
def test_another_text_is_no_pattern(pattern: str) -> None:
    with pytest.raises(SchemaError):
        Globs((pattern,))


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [("/data/*.csv", "/data"), ("/data/a/b.csv", "/data/a"), ("/**/b.csv", "/"), ("/a/[x]/b", "/a")],
)
def test_the_folder_above_the_wildcards(pattern: str, folder: str) -> None:
    assert fixed_folder(pattern) == folder
