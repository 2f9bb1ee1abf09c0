r"""The spelling of file names on the wire: a name on Linux is bytes, JSON is text.

Rule: reversible, and one spelling for one name. A name that is UTF-8 is itself. A byte that is not UTF-8 is `\xNN` (two
lower-case hex digits, 80 to ff), and a backslash that would begin such a group in the plain name is `\x5c`.
"""

import re
from typing import Final

from schemas.errors import SchemaError

_GROUP: Final = r"x(?:[89a-f][0-9a-f]|5c)"
_SPECIAL: Final = re.compile(rf"\\(?={_GROUP})|[\udc80-\udcff]")
_SPELLED: Final = re.compile(rf"\\{_GROUP}")
_BACKSLASH: Final = r"\x5c"
_ESCAPED_BYTES: Final = 0xDC00
"""Python keeps a byte that is not UTF-8 as this code point plus the byte (`surrogateescape`)."""


def spelled(name: str) -> str:
    r"""The spelling of a name, or a path, as `os` returns it.

    >>> spelled("a\udcff.log"), spelled(r"a\xff.log"), spelled("ä\\b")
    ('a\\xff.log', 'a\\x5cxff.log', 'ä\\b')
    """
    return name if _is_usual(name) else _SPECIAL.sub(_spell, name)


def unspelled(text: str) -> str:
    r"""The name, or the path, of a spelling, as `os` takes it; `SchemaError` for what spells no name.

    >>> unspelled(r"a\xff.log") == "a\udcff.log", unspelled(r"a\x5cxff.log")
    (True, 'a\\xff.log')
    """
    if _is_usual(text):
        return text
    name = _SPELLED.sub(_read, text)
    try:
        text.encode()
        # Escaped bytes that are UTF-8 together would be a second spelling of that character.
        canonical = spelled(name.encode(errors="surrogateescape").decode(errors="surrogateescape"))
    except UnicodeError:
        canonical = None
    if canonical != text:
        message = f"{text!r} is the spelling of no file name"
        raise SchemaError(message)
    return name


def plain(text: str) -> str:
    r"""A spelling in which each byte that is not UTF-8 is `_`: for a name that is shown, and never read back.

    >>> plain(r"a\xff.log"), plain(r"a\x5cxff.log")
    ('a_.log', 'a\\xff.log')
    """
    return _SPELLED.sub(lambda match: "\\" if match[0] == _BACKSLASH else "_", text)


def _is_usual(text: str) -> bool:
    return text.isascii() and "\\" not in text


def _spell(match: re.Match[str]) -> str:
    letter = match[0]
    return _BACKSLASH if letter == "\\" else rf"\x{ord(letter) - _ESCAPED_BYTES:02x}"


def _read(match: re.Match[str]) -> str:
    byte = int(match[0].removeprefix("\\x"), base=16)
    return "\\" if match[0] == _BACKSLASH else chr(_ESCAPED_BYTES + byte)
