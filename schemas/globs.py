"""Patterns of absolute paths, as an automaton over the components of a path.

Rule: pure, and one meaning on both sides of the wire. `*`, `?` and `[…]` match within a component, `**` matches any
number of components. As in a shell, a name that begins with a dot is matched only by a pattern that does.

>>> logs = Globs(("/var/log/**/*.log",))
>>> logs.matches("/var/log/app/a.log"), logs.matches("/var/log/.old/a.log"), logs.matches("/var/a.log")
(True, False, False)
>>> excluded = Globs.excluding(("debug.log", "**/cache", "/tmp/*"))
>>> excluded.matches("/var/debug.log"), excluded.matches("/tmp/.x"), excluded.covers("/a/.cache/cache/b/c")
(True, True, True)
"""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import Final, Self

from schemas.environment import is_utf8
from schemas.errors import SchemaError

MAX_COMPONENTS: Final = 64
MAX_PATH: Final = 4096
_ANY_DEPTH: Final = "**"
_TWICE: Final = (_ANY_DEPTH, _ANY_DEPTH)
WILDCARD: Final = re.compile(r"[*?\[]")
"""What begins a wildcard."""


def components_of(path: str) -> list[str]:
    """The components of an absolute path or pattern; `SchemaError` for any other, or a component such as `..`."""
    components = path.split("/")[1:]
    absolute = path.startswith("/") and len(path) <= MAX_PATH and "\0" not in path and is_utf8(path)
    if not absolute or any(component in {"", ".", ".."} for component in components):
        text = "a file path must be absolute, of at most 4096 characters of UTF-8, without //, /./, /../ and NUL"
        raise SchemaError(text)
    return components


def fixed_folder(pattern: str) -> str:
    """The folder above the first wildcard, or above the file.

    >>> fixed_folder("/data/*/a.csv"), fixed_folder("/data/a.csv"), fixed_folder("/*")
    ('/data', '/data', '/')
    """
    folders: list[str] = []
    for name in components_of(pattern)[:-1]:
        if WILDCARD.search(name):
            break
        folders.append(name)
    return "/" + "/".join(folders)


class Globs:
    """Several patterns as one automaton. A state is the set of the components that may come next, of all patterns.

    `SchemaError` for a pattern that is not an absolute path, or has more than 64 components.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._dots_differ = True
        self._parts: list[str | None] = []
        """The components of all patterns; None ends each of them."""
        starts: list[int] = []
        for pattern in patterns:
            starts.append(len(self._parts))
            self._parts += [*_without_runs(components_of(pattern)), None]
        self._tests = [None if part is None else re.compile(fnmatch.translate(part)) for part in self._parts]
        self._ends = frozenset(index for index, part in enumerate(self._parts) if part is None)
        self._start = self._closure(set(starts))

    @classmethod
    def excluding(cls, patterns: Iterable[str]) -> Self:
        """Patterns of what is left out: one without a leading `/` matches at any depth, and a dot is no exception."""
        globs = cls(pattern if pattern.startswith("/") else f"/{_ANY_DEPTH}/{pattern}" for pattern in patterns)
        globs._dots_differ = False
        return globs

    @property
    def start(self) -> frozenset[int]:
        """The state before the first component."""
        return self._start

    def enter(self, root: str) -> frozenset[int]:
        """The state beneath a root, in which a dot is like any other character; empty when nothing there can match."""
        states = self._start
        for name in filter(None, root.split("/")):
            states = self._step(states, name, dotted=False)
        return states - self._ends

    def step(self, states: frozenset[int], name: str) -> frozenset[int]:
        """The state after one more component."""
        return self._step(states, name, dotted=self._dots_differ and name.startswith("."))

    def accepts(self, states: frozenset[int]) -> bool:
        """Whether a path that led here matches."""
        return not self._ends.isdisjoint(states)

    def matches(self, path: str) -> bool:
        """Whether this path matches."""
        states = self._start
        for name in path.split("/")[1:]:
            states = self.step(states, name)
        return self.accepts(states)

    def covers(self, path: str) -> bool:
        """Whether this path matches, or a folder above it."""
        states = self._start
        for name in path.split("/")[1:]:
            states = self.step(states, name)
            if self.accepts(states):
                return True
        return False

    def _step(self, states: frozenset[int], name: str, *, dotted: bool) -> frozenset[int]:
        after = set[int]()
        for index in states:
            part, test = self._parts[index], self._tests[index]
            if part is None or test is None or (dotted and not part.startswith(".")):
                continue
            if part == _ANY_DEPTH:
                after.add(index)
            elif test.match(name):
                after.add(index + 1)
        return self._closure(after) if after else frozenset()

    def _closure(self, states: set[int]) -> frozenset[int]:
        """With what follows a `**`, since it also stands for no folder at all."""
        for index in tuple(states):
            following = index
            while self._parts[following] == _ANY_DEPTH:
                following += 1
                states.add(following)
        return frozenset(states)


def _without_runs(parts: Sequence[str]) -> list[str]:
    """A second `**` behind the first matches nothing more, and each one costs work at every entry."""
    kept = [part for part, before in zip(parts, ["", *parts], strict=False) if (part, before) != _TWICE]
    if len(kept) > MAX_COMPONENTS:
        text = f"a pattern has at most {MAX_COMPONENTS} components"
        raise SchemaError(text)
    return kept
