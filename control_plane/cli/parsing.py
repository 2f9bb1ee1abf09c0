"""Reading the options `key=value`, idempotency keys, deadlines and documents.

Rule: an option that cannot be read raises `Misused` with the text that was typed.
"""

import json
import re
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from control_plane.cli.errors import Misused
from control_plane.cli.text import duration
from schemas.messages import AFTER_PATTERN

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


def read_key_values(arguments: Iterable[str]) -> dict[str, str]:
    """`key=value` arguments as a map; a value may hold `=`.

    >>> read_key_values(["a=1", "b=x=y"])
    {'a': '1', 'b': 'x=y'}
    """
    pairs: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key and equals):
            text = f"{argument!r} is not key=value"
            raise Misused(text)
        pairs[key] = value
    return pairs


def read_options(arguments: Iterable[str]) -> dict[str, object]:
    """`key=value` arguments, with each value read as JSON where possible.

    >>> read_options(["priority=5", "on_change=prefix"])
    {'priority': 5, 'on_change': 'prefix'}
    """
    return {key: _json(value) for key, value in read_key_values(arguments).items()}


def read_upload_options(arguments: Iterable[str] | None, encrypt_to: Iterable[str] | None) -> dict[str, object]:
    """The options of an upload, with the recipients of `--encrypt-to` among them; `Misused`."""
    options = read_options(arguments or ())
    recipients = [recipient for value in encrypt_to or () for recipient in _recipients(value)]
    return {**options, "encrypt_to": recipients} if recipients else options


def _recipients(value: str) -> list[str]:
    """The recipient, or those in a file as `age -R` reads it: one a line, with empty lines and comments."""
    if value.startswith("age1"):
        return [value]
    try:
        lines = Path(value).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        message = f"--encrypt-to {value!r} is neither age1… nor a file with recipients: {reason}"
        raise Misused(message) from error
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        message = f"--encrypt-to {value!r}: the file has no recipient"
        raise Misused(message)
    return found


def read_key(text: str | None) -> str | None:
    """An `Idempotency-Key` as a header can carry it."""
    if text is not None and _KEY.fullmatch(text) is None:
        message = f"--idempotency-key {text!r} must be 1 to 255 visible ASCII characters"
        raise Misused(message)
    return text


def read_deadline(text: str | None) -> float | str | None:
    """A deadline in REST's form: seconds from now, or an RFC 3339 instant with its offset.

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
        message = f"{text!r} is no deadline: write 2h, 7d or 2025-11-01T10:00:00Z"
        raise Misused(message)
    return text


def read_document(file: str) -> dict[str, Any]:
    """The JSON object in a file; `-` is standard input."""
    name = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
        document = json.loads(text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f"{name}: {reason}"
        raise Misused(message) from error
    if not isinstance(document, dict):
        message = f"{name}: is no JSON object"
        raise Misused(message)
    return document


def _json(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value


def read_after(text: str | None) -> str | None:
    """The value of `--after`, None without one; `Misused`."""
    if text is not None and re.fullmatch(AFTER_PATTERN, text) is None:
        message = f"--after: {text!r} is not keep, delete or move:/FOLDER"
        raise Misused(message)
    return text
