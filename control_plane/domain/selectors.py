"""Which clients: a selector over labels in Kubernetes' grammar, and patterns over client ids.

Rule: pure. One parser serves the predicate here and the SQL of the database adapter; a test shows that both agree.

    selector    = requirement *( "," requirement )          every requirement must hold
    requirement = key | "!" key                             the client has, or has not, this label
                | key ( "=" | "==" | "!=" ) [ value ]       nothing after the sign is the empty value
                | key ( "in" | "notin" ) "(" value *( "," value ) ")"

As in Kubernetes, `!=` and `notin` match a client without the label too, and an empty selector matches every client. A
label that holds a space or one of = ! ( ) , < > is written in double quotes, with a backslash before each double quote
and each backslash inside.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from msgspec import Struct

from control_plane.domain.errors import SelectorError

MAX_LENGTH: Final = 8_192
"""Characters of a selector."""

MAX_TERMS: Final = 32
MAX_VALUES: Final = 500
"""Values of all requirements together: each becomes a parameter of a query."""

_TOKEN: Final = re.compile(
    r"""[ \t\r\n]*(?:
        (?P<sign>!=|==|=|!|\(|\)|,|<|>)
      | "(?P<quoted>(?:[^"\\]|\\["\\])*)"
      | (?P<word>[^\s=!(),<>"]+)
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_UNUSABLE: Final = re.compile("[\0\ufffd\ud800-\udfff]")
"""Characters that a database does not keep, or keeps as another."""


class Relation(StrEnum):
    """What a term requires of the label of its key."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "absent"


class Term(Struct, frozen=True):
    """One requirement. `values` is empty for `EXISTS` and `ABSENT`, and has no value twice."""

    key: str
    relation: Relation
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a client with these labels fulfils it."""
        match self.relation:
            case Relation.EXISTS:
                return self.key in labels
            case Relation.ABSENT:
                return self.key not in labels
            case Relation.IN:
                return labels.get(self.key) in self.values
            case Relation.NOT_IN:
                return labels.get(self.key) not in self.values


class Selector(Struct, frozen=True):
    """A parsed selector: a client is selected when every term matches. `text` is as it was written."""

    text: str
    terms: tuple[Term, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a client with these labels is selected."""
        return all(term.matches(labels) for term in self.terms)

    def same_as(self, other: "Selector") -> bool:
        """Whether both have the same requirements, in any order."""
        return frozenset(self.terms) == frozenset(other.terms)


EVERYTHING: Final = Selector("", ())


def both(one: Selector, other: Selector | None) -> Selector:
    """The clients that both select; with None those of the first."""
    if other is None:
        return one
    return Selector(",".join(filter(None, (one.text, other.text))), (*one.terms, *other.terms))


class _Token(NamedTuple):
    """`kind` is `word`, `quoted`, `sign` or `end`; `at` is its first character."""

    kind: str
    text: str
    at: int


def parse(text: str) -> Selector:
    """The selector that `text` describes; `SelectorError` with the position of the first character that is wrong."""
    if len(text) > MAX_LENGTH:
        raise SelectorError(text, MAX_LENGTH, f"it is longer than {MAX_LENGTH} characters")
    if wrong := _UNUSABLE.search(text):
        raise SelectorError(text, wrong.start(), "this character cannot be searched for")
    return _Parser(text).selector()


class _Parser:
    """Reads one text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._values = 0
        self._end = 0
        self._token = self._scanned()

    def selector(self) -> Selector:
        """The whole text."""
        terms: list[Term] = []
        if self._token.kind == "end":
            return Selector(self._text, ())
        while True:
            if len(terms) == MAX_TERMS:
                self._fail(f"there are more than {MAX_TERMS} requirements")
            terms.append(self._term())
            if self._token.kind == "end":
                return Selector(self._text, tuple(terms))
            if not self._skip(","):
                self._fail("expected a comma or the end")

    def _term(self) -> Term:
        if self._skip("!"):
            return Term(self._label("a key"), Relation.ABSENT)
        key = self._label("a key")
        if self._skip("=") or self._skip("=="):
            return Term(key, Relation.IN, (self._value(),))
        if self._skip("!="):
            return Term(key, Relation.NOT_IN, (self._value(),))
        if self._token.kind == "word":
            if self._token.text not in (Relation.IN, Relation.NOT_IN):
                self._fail("expected =, !=, in, notin, a comma or the end")
            return Term(key, Relation(self._next().text), self._list())
        if self._token.text in ("<", ">") and self._token.kind == "sign":
            self._fail("labels have no order: use =, !=, in or notin")
        return Term(key, Relation.EXISTS)

    def _list(self) -> tuple[str, ...]:
        if not self._skip("("):
            self._fail("expected (")
        if self._token[:2] == ("sign", ")"):
            self._fail("expected at least one value")
        values = [self._value()]
        while not self._skip(")"):
            if not self._skip(","):
                self._fail("expected a comma or )")
            values.append(self._value())
        return tuple(dict.fromkeys(values))

    def _value(self) -> str:
        self._values += 1
        if self._values > MAX_VALUES:
            self._fail(f"there are more than {MAX_VALUES} values")
        # As in Kubernetes, a value that is left out is the empty one: `a=`, `a in (x,)`.
        left_out = self._token.kind == "end" or self._token[:2] in (("sign", ","), ("sign", ")"))
        return "" if left_out else self._label("a value")

    def _label(self, expected: str) -> str:
        if self._token.kind not in ("word", "quoted"):
            self._fail(f"expected {expected}")
        return self._next().text

    def _skip(self, sign: str) -> bool:
        found = self._token[:2] == ("sign", sign)
        if found:
            self._next()
        return found

    def _next(self) -> _Token:
        token = self._token
        self._token = self._scanned()
        return token

    def _scanned(self) -> _Token:
        found = _TOKEN.match(self._text, self._end)
        if found is None or found.lastgroup is None:
            begun = next(at for at in range(self._end, len(self._text)) if self._text[at] not in " \t\r\n")
            why = (
                'a text in quotes has no end, or a \\ in it without " or \\'
                if self._text[begun] == '"'
                else "write this character in double quotes"
            )
            raise SelectorError(self._text, begun, why)
        self._end = found.end()
        kind = found.lastgroup
        text = re.sub(r"\\(.)", r"\1", found[kind]) if kind == "quoted" else found[kind]
        return _Token(kind, text, found.start(kind) - (kind == "quoted"))

    def _fail(self, why: str) -> None:
        raise SelectorError(self._text, self._token.at, why)


def selectable(text: str) -> bool:
    """Whether a selector can find a label with this text, in every database."""
    return _UNUSABLE.search(text) is None


def ids_matching(patterns: Sequence[str], client_ids: Iterable[str]) -> list[str]:
    """Those of these client ids that one of the patterns matches; `*` stands for any text.

    No pattern makes it slow: what stands before a later `*` is never tried at a second place.

    >>> ids_matching(["shop-*-pi", "*-7"], ["shop-7-pi", "shop-7", "till-1"])
    ['shop-7-pi', 'shop-7']
    """
    if not patterns:
        return []
    # One search over all lines: to call a function for each id and pattern takes ten times as long.
    lines = re.compile(f"^(?:{'|'.join(map(_expression, patterns))})$", re.MULTILINE)
    # No ids are one empty line, and no id is empty.
    return [found for found in lines.findall("\n".join(client_ids)) if found]


def _expression(pattern: str) -> str:
    first, *rest = map(re.escape, pattern.split("*"))
    if not rest:
        return first
    *inner, last = rest
    return f"{first}{''.join(f'(?>.*?{piece})' for piece in inner)}.*{last}"
