"""What both sides check of their settings: the bytes of a text, and whether a host is this machine.

Rule: pure.
"""

import ipaddress


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


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine: a connection to it crosses no network.

    >>> is_loopback("localhost"), is_loopback("[::1]"), is_loopback("10.0.0.1")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
