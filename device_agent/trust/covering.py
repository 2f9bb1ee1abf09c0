"""Whether everything that one pattern of paths matches is allowed by others: for a listing by a limited key.

Rule: pure, and never too generous: what counts as covered is covered, for any files. A comparison that
would take too long is "not covered".
"""

import fnmatch
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from schemas.globs import components_of

MAX_WORK: Final = 300_000
"""Steps of one comparison: about a fifth of a second on a small device."""

_ANY_DEPTH: Final = "**"
_STAR: Final = "*"
_NEAR: Final = (-2, -1, 0, 1, 2)
_NOT_IN_NAMES: Final = frozenset("/\0")


class _At(NamedTuple):
    """A place in a pattern: before a character of a component. `token` is None within a folder that `**` stands for."""

    part: int
    token: int | None


class _Pattern:
    """One pattern as an automaton over characters. Between two components it is at the number of the next one."""

    def __init__(self, pattern: str, letters: Iterable[str]) -> None:
        self._parts = [None if part == _ANY_DEPTH else _tokens(part) for part in components_of(pattern)]
        known: dict[str, frozenset[str]] = {}
        for token in {token for part in self._parts for token in part or ()} - {_STAR}:
            test = re.compile(fnmatch.translate(token))
            known[token] = frozenset(letter for letter in letters if test.match(letter))
        self._known = known

    def begins(self) -> frozenset[int]:
        """The components that may come first."""
        return self._following(0)

    def ends(self, before: frozenset[int]) -> bool:
        """Whether a path that ends here matches."""
        return len(self._parts) in before

    def enter(self, before: Iterable[int]) -> frozenset[_At]:
        """The places at the beginning of the next component."""
        inside = frozenset(part for part in before if part < len(self._parts))
        return frozenset(_At(part, None if self._parts[part] is None else 0) for part in inside)

    def read(self, places: Iterable[_At], letter: str) -> frozenset[_At]:
        """The places after one more character of the component."""
        return frozenset(after for place in places for after in self._read(place, letter))

    def leave(self, places: Iterable[_At]) -> frozenset[int]:
        """The components that may come next, if this one ends here."""
        found = set[int]()
        for place in places:
            tokens = self._parts[place.part]
            if tokens is None or place.token is None:
                found |= self._following(place.part)
            elif all(token == _STAR for token in tokens[place.token :]):
                found |= self._following(place.part + 1)
        return frozenset(found)

    def _read(self, place: _At, letter: str) -> Iterator[_At]:
        tokens = self._parts[place.part]
        if tokens is None or place.token is None:
            yield place
            return
        for index in range(place.token, len(tokens)):
            if tokens[index] == _STAR:
                # It takes this character, or stands for nothing more.
                yield _At(place.part, index)
                continue
            if letter in self._known[tokens[index]]:
                yield _At(place.part, index + 1)
            return

    def _following(self, part: int) -> frozenset[int]:
        """This component, and what follows it if it is a `**`: that also stands for no folder at all."""
        found = [part]
        while part < len(self._parts) and self._parts[part] is None:
            part += 1
            found.append(part)
        return frozenset(found)


def covers_pattern(patterns: Iterable[str], asked: str) -> bool:
    """Whether `patterns`, as `Globs.excluding` takes them, cover every path that `asked` matches, dots or not.

    `SchemaError` for a pattern that is none.

    >>> covers_pattern(["/data/a?"], "/data/a*"), covers_pattern(["/data/a*"], "/data/a?")
    (False, True)
    """
    whole = [pattern if pattern.startswith("/") else f"/{_ANY_DEPTH}/{pattern}" for pattern in patterns]
    letters = sorted(_letters("".join([*whole, asked])))
    wanted = _Pattern(asked, letters)
    allowed = [_Pattern(pattern, letters) for pattern in whole]
    return _Comparison(wanted, allowed, letters).holds()


_Before = tuple[frozenset[int], tuple[frozenset[int], ...]]
_Within = tuple[frozenset[_At], tuple[frozenset[_At], ...]]


class _Comparison:
    """Follows the pattern that is asked for and those that allow it, together, over every text of `letters`."""

    def __init__(self, wanted: _Pattern, allowed: list[_Pattern], letters: list[str]) -> None:
        self._wanted = wanted
        self._allowed = allowed
        self._letters = letters
        self._work = MAX_WORK

    def holds(self) -> bool:
        """Whether no path matches what is wanted, and none of what is allowed, nor a folder above it."""
        first: _Before = (self._wanted.begins(), tuple(one.begins() for one in self._allowed))
        open_, seen = [first], {first}
        while open_:
            for after in self._components(open_.pop()):
                if any(one.ends(before) for one, before in zip(self._allowed, after[1], strict=True)):
                    # This folder is allowed, and so is all below it.
                    continue
                if self._wanted.ends(after[0]) or self._work < 0:
                    return False
                if after not in seen:
                    seen.add(after)
                    open_.append(after)
        return self._work >= 0

    def _components(self, before: _Before) -> Iterator[_Before]:
        """Where every possible next component leads."""
        wanted, allowed = self._wanted, self._allowed
        first: _Within = (
            wanted.enter(before[0]),
            tuple(one.enter(part) for one, part in zip(allowed, before[1], strict=True)),
        )
        # No name is empty: where the component begins it does not end, also if that place is reached again.
        open_, seen = [first], set[_Within]()
        while open_ and self._work >= 0:
            places, others = open_.pop()
            for letter in self._letters:
                self._work -= 1 + len(places)
                after = wanted.read(places, letter)
                if not after:
                    continue
                self._work -= sum(map(len, others))
                rest = tuple(one.read(part, letter) for one, part in zip(allowed, others, strict=True))
                if (after, rest) in seen:
                    continue
                seen.add((after, rest))
                open_.append((after, rest))
                ended = wanted.leave(after)
                if ended:
                    yield ended, tuple(one.leave(part) for one, part in zip(allowed, rest, strict=True))


def _letters(text: str) -> set[str]:
    """Of all characters that these patterns can distinguish, at least one of each kind.

    They distinguish the characters that they name, and the ranges between these: so those beside them are enough.
    """
    near = {ord(letter) + by for letter in text for by in _NEAR}
    return {chr(code) for code in near if 0 < code <= sys.maxunicode} - _NOT_IN_NAMES


def _tokens(part: str) -> list[str]:
    """A component as patterns of one character each, and `*`; a `[` that nothing closes is a character."""
    found: list[str] = []
    at = 0
    while at < len(part):
        end = at + 1
        if part[at] == "[":
            # As `fnmatch` reads it: a `]` right behind the beginning belongs to the set.
            begin = at + 2 if part[at + 1 : at + 2] == "!" else at + 1
            close = part.find("]", begin + 1)
            end = close + 1 if close >= 0 else end
        one = part[at:end]
        if one != _STAR or found[-1:] != [_STAR]:
            found.append("[[]" if one == "[" else one)
        at = end
    return found
