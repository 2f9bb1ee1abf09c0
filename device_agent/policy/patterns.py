"""Patterns of files that a rule of the policy is about: a name at any depth, or a path, and all that lies below.

Rule: pure. Case is ignored: on a FAT disk `ID.KEY` opens `id.key`. A dot is no exception for a wildcard.

>>> secret = PathPatterns((".ssh", "*.key", "/data/private/*"))
>>> secret.covers("/home/a/.SSH/id"), secret.covers("/data/private/x/y"), secret.covers("/data/keys")
(True, True, False)
"""

import fnmatch
import re
from collections.abc import Iterable
from typing import Final

from schemas.globs import Globs

State = frozenset[int]
"""The state of a walk in one folder, as of `schemas.globs.Globs`."""

_NEVER: Final = re.compile(r"(?!)")


class PathPatterns:
    """Several patterns. One without a slash is the name of a file or folder at any depth.

    One with a slash and without a leading one matches at any depth, too. `SchemaError` for a wrong pattern.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.written = tuple(patterns)
        folded = [pattern.casefold() for pattern in self.written]
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
        return next((pattern for pattern in self.written if PathPatterns((pattern,)).covers(path)), None)
