"""Patterns of files that a rule of the policy is about: a name at any depth, or a path, and all that lies below.

Rule: pure. Case is ignored: on a FAT disk `ID.KEY` opens `id.key`. A dot is no exception for a wildcard.

>>> secret = PathPatterns((".ssh", "*.key", "/data/private/*"))
>>> secret.covers("/home/a/.SSH/id"), secret.covers("/data/private/x/y"), secret.covers("/data/keys")
(True, True, False)
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from schemas.globs import WILDCARD, Globs, fixed_folder

State = frozenset[int]
"""The state of a walk in one folder, as of `schemas.globs.Globs`."""

_NEVER: Final = re.compile(r"(?!)")
_NO_OTHERS: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})


class PathPatterns:
    """Several patterns. One without a slash is the name of a file or folder at any depth.

    One with a slash and without a leading one matches at any depth, too. `others` are further spellings of a pattern.
    `SchemaError` for a wrong pattern.
    """

    def __init__(self, patterns: Iterable[str], others: Mapping[str, Sequence[str]] = _NO_OTHERS) -> None:
        self.written = tuple(patterns)
        self._others = others
        every = (*self.written, *(one for pattern in self.written for one in others.get(pattern, ())))
        folded = [pattern.casefold() for pattern in every]
        # Most patterns are plain names: one expression for all of them costs less than the automaton at each entry.
        names = [fnmatch.translate(pattern) for pattern in folded if "/" not in pattern]
        self._names = re.compile("|".join(names)) if names else _NEVER
        self._paths = Globs.excluding(pattern for pattern in folded if "/" in pattern)
        self.start: State = self._paths.start

    def step(self, state: State, name: str) -> State | None:
        """The state after one more component; None where a pattern matches, and so all below."""
        folded = name.casefold()
        if self._names.match(folded):
            return None
        if not state:
            return state
        after = self._paths.step(state, folded)
        return None if self._paths.accepts(after) else after

    def enter(self, path: str) -> State | None:
        """The state below an absolute path; None where a pattern matches it, or a folder above it."""
        state: State | None = self.start
        for name in filter(None, path.split("/")):
            if state is None:
                return None
            state = self.step(state, name)
        return state

    def covers(self, path: str) -> bool:
        """Whether a pattern matches this path, or a folder above it."""
        return self.enter(path) is None

    def first_for(self, path: str) -> str | None:
        """The first pattern that covers the path, for a person; None without one."""
        return next((one for one in self.written if PathPatterns((one,), self._others).covers(path)), None)

    def resolved(self, real: Callable[[str], str]) -> "PathPatterns":
        """The same patterns, and each path among them also as it is without links; `real` resolves a path."""
        paths = (pattern for pattern in self.written if pattern.startswith("/"))
        return PathPatterns(self.written, {pattern: tuple(_without_links(pattern, real)) for pattern in paths})


def _without_links(pattern: str, real: Callable[[str], str]) -> Iterator[str]:
    """The pattern below the folder that it is really about; where it is one path, also what that path leads to."""
    folder = fixed_folder(pattern)
    yield f"{_literal(real(folder)).rstrip('/')}{pattern[len(folder.rstrip('/')) :]}"
    if WILDCARD.search(pattern) is None:
        yield _literal(real(pattern))


def _literal(path: str) -> str:
    """A pattern that only this path matches."""
    return WILDCARD.sub(r"[\g<0>]", path)
