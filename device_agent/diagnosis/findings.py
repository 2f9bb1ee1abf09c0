"""The findings of the doctor, for a person and for a program.

Rule: pure, but for the width of the terminal, which the caller gives.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

_WORD: Final = 7
_NAME: Final = 15
_NARROWEST: Final = 30
"""Columns that the texts need beside the names."""

_INDENT: Final = 2
_SHORTEST: Final = 10


class Finding(Struct, frozen=True):
    """The result of one check; `remedy` is what a person does about it, None where nothing is to be done."""

    name: str
    fine: bool
    text: str
    remedy: str | None = None


def shown(findings: Sequence[Finding], width: int) -> str:
    """A line for each finding, its remedy below it, and a verdict; no line is wider than `width` columns."""
    wrong = sum(not one.fine for one in findings)
    verdict = "Nothing is wrong." if not wrong else f"{wrong} of {len(findings)} findings are wrong."
    return "\n".join([*lines_of(findings, width), "", verdict])


def as_json(findings: Iterable[Finding]) -> str:
    """One JSON document."""
    found = list(findings)
    document = {"ok": all(one.fine for one in found), "findings": found}
    return msgspec.json.encode(document).decode()


def lines_of(findings: Sequence[Finding], width: int) -> Iterator[str]:
    """The lines of the findings alone."""
    # On a narrow terminal the texts begin below the name.
    narrow = width < _WORD + _NAME + _NARROWEST
    room = max(_SHORTEST, width - _INDENT) if narrow else width - _WORD - _NAME
    for one in findings:
        head = f"{'ok' if one.fine else 'wrong':<{_WORD}}{one.name:<{_NAME}}"
        rest = " " * (_INDENT if narrow else _WORD + _NAME)
        if narrow:
            yield head.rstrip()
        texts = textwrap.wrap(_printable(one.text), room, break_on_hyphens=False) or [""]
        if one.remedy is not None:
            texts += textwrap.wrap(f"-> {_printable(one.remedy)}", room, break_on_hyphens=False)
        for number, text in enumerate(texts):
            yield f"{rest if number or narrow else head}{text}"


def _printable(text: str) -> str:
    """The text without what moves a terminal's cursor."""
    return "".join(one if one.isprintable() else "?" for one in text)
