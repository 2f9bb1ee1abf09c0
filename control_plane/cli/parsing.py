"""What is typed as `key=value`, and instants typed by hand.

Rule: what cannot be read is `Misused`, with the text that was typed.
"""

import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from control_plane.cli.errors import Misused
from control_plane.cli.text import duration

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


def read_pairs(words: Iterable[str]) -> dict[str, str]:
    """`key=value` words as a map; a value may hold `=`.

    >>> read_pairs(["a=1", "b=x=y"])
    {'a': '1', 'b': 'x=y'}
    """
    pairs: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            text = f"{word!r} is not key=value"
            raise Misused(text)
        pairs[key] = value
    return pairs


def read_options(words: Iterable[str]) -> dict[str, object]:
    """`key=value` words whose values are JSON where they can be.

    >>> read_options(["priority=5", "on_change=prefix"])
    {'priority': 5, 'on_change': 'prefix'}
    """
    return {key: _json(value) for key, value in read_pairs(words).items()}


def read_key(text: str | None) -> str | None:
    """An `Idempotency-Key` as a header can carry it."""
    if text is not None and _KEY.fullmatch(text) is None:
        complaint = f"--idempotency-key {text!r} must be 1 to 255 visible ASCII characters"
        raise Misused(complaint)
    return text


def read_deadline(text: str | None) -> float | str | None:
    """A deadline as REST takes it: seconds from now, or an RFC 3339 instant with its offset.

    >>> read_deadline("2h"), read_deadline("2025-11-01T10:00:00Z")
    (7200.0, '2025-11-01T10:00:00Z')
    """
    if text is None:
        return None
    seconds = duration(text)
    return _instant(text) if seconds is None else seconds


def _instant(text: str) -> str:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        complaint = f"{text!r} is no deadline: write 2h, 7d or 2025-11-01T10:00:00Z"
        raise Misused(complaint)
    return text


def _json(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value
