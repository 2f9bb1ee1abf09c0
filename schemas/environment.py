"""What both sides check of their settings: the bytes of a text, the name of a host, and whether it is this machine.

Rule: pure.
"""

import ipaddress
from typing import Final

_LONGEST: Final = 63
"""Letters of one label of a name (RFC 1035)."""


def is_utf8(text: str) -> bool:
    r"""Whether the bytes of a variable were UTF-8. Python reads others as lone surrogates, which no message carries.

    >>> is_utf8("caf\u00e9"), is_utf8("caf\udce9")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def host_name(host: str) -> bytes:
    """A name or an address as bytes in ASCII; `UnicodeError` for one that cannot be looked up.

    That is a name with an empty label, but for the one behind a last dot, or with one of over 63 letters.

    >>> host_name("broker.example"), host_name("b\u00fccher.example")
    (b'broker.example', b'xn--bcher-kva.example')
    """
    # Python's codec `idna` loads the tables of Unicode, 0.2 MiB for as long as the process lives; a name in ASCII, as
    # nearly every one is, needs none of them.
    if not host.isascii():
        return host.encode("idna")
    *labels, last = host.split(".")
    if not all(labels) or any(len(label) > _LONGEST for label in (*labels, last)):
        text = "a label of the name is empty, or longer than 63 letters"
        raise UnicodeError(text)
    return host.encode()


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine: a connection to it crosses no network.

    >>> is_loopback("localhost"), is_loopback("[::1]"), is_loopback("10.0.0.1")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
