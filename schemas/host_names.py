"""The name of a host as DNS and TLS carry it.

Rule: pure. Python's codec `idna` loads the tables of Unicode, 1 MiB of memory for as long as the process lives. A name
in ASCII, as nearly every one is, needs none of them, and is not given to that codec.
"""

from typing import Final

_LONGEST: Final = 63
"""Letters of one label (RFC 1035)."""


def host_name(host: str) -> bytes:
    """A name or an address as bytes in ASCII; `UnicodeError` for one that cannot be looked up.

    That is a name with an empty label, but for the one behind a last dot, or with one of over 63 letters.

    >>> host_name("broker.example"), host_name("b\u00fccher.example")
    (b'broker.example', b'xn--bcher-kva.example')
    """
    if not host.isascii():
        return host.encode("idna")
    *labels, last = host.split(".")
    if not all(labels) or any(len(label) > _LONGEST for label in (*labels, last)):
        text = "a label of the name is empty, or longer than 63 letters"
        raise UnicodeError(text)
    return host.encode()
