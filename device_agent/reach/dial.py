"""Opens connections: to the first address that answers, or through an HTTP proxy by CONNECT; with TLS, or without.

Rule: a name has its addresses tried in turn, of each family, with a short wait between two (RFC 8305); so a family that
leads nowhere costs a moment. Behind a proxy the proxy resolves the name, and this device does not.
"""

import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any, Final

from device_agent.errors import ProxyFailed
from device_agent.reach.proxy import HttpProxy
from schemas.environment import host_name

TIMEOUT: Final = 15.0
"""Seconds until a connection is open."""

NEXT_ADDRESS: Final = 1.0
"""Seconds after which the next address is tried as well."""

_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

Address = tuple[int, int, int, str, Any]
"""One answer of `socket.getaddrinfo`."""


def dial(
    host: str, port: int, proxy: HttpProxy | None, tls: ssl.SSLContext | None, timeout: float = TIMEOUT
) -> socket.socket:
    """A connection to `host`, through `proxy` if there is one; `OSError` when there is none within `timeout` seconds.

    It sends without delay (TCP_NODELAY), and its socket has `timeout`. `tls` is None for a plain one.
    """
    until = time.monotonic() + timeout
    link = _opened(host, port, until) if proxy is None else _to_proxy(proxy, until)
    try:
        if proxy is not None:
            proxy.connect(link, host, port, until)
        if tls is not None:
            link.settimeout(max(until - time.monotonic(), 1.0))
            link = tls.wrap_socket(link, server_hostname=host_name(host))
    except BaseException:
        link.close()
        raise
    link.settimeout(timeout)
    return link


def dial_proxy(proxy: HttpProxy, timeout: float = TIMEOUT) -> socket.socket:
    """A connection to the proxy itself, as `dial` makes it; `ProxyFailed` when there is none."""
    link = _to_proxy(proxy, time.monotonic() + timeout)
    link.settimeout(timeout)
    return link


def _in_turn(found: Sequence[Address]) -> list[Address]:
    """The addresses, one of each family after the other; the family that the system prefers is first."""
    families = dict.fromkeys(one[0] for one in found)
    lists = [[one for one in found if one[0] == family] for family in families]
    return [one for one in chain(*zip_longest(*lists)) if one is not None]


def _to_proxy(proxy: HttpProxy, until: float) -> socket.socket:
    try:
        return _opened(proxy.host, proxy.port, until)
    except OSError as error:
        text = f"the proxy {proxy} cannot be reached: {error.strerror or error}"
        raise ProxyFailed(text) from error


def _opened(host: str, port: int, until: float) -> socket.socket:
    waiting = _in_turn(socket.getaddrinfo(host_name(host), port, type=socket.SOCK_STREAM))
    tried: dict[int, socket.socket] = {}
    errors: list[OSError] = []
    poll = select.poll()
    try:
        while (waiting or tried) and (left := until - time.monotonic()) > 0:
            if waiting and (link := _begun(waiting.pop(0), errors)) is not None:
                tried[link.fileno()] = link
                poll.register(link, select.POLLOUT)
            patience = min(left, NEXT_ADDRESS) if waiting else left
            for descriptor, _ in poll.poll(patience * 1000) if tried else ():
                poll.unregister(descriptor)
                link = tried.pop(descriptor)
                code = link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return link
                link.close()
                errors.append(OSError(code, os.strerror(code)))
    finally:
        for link in tried.values():
            link.close()
    # An address that answers with a refusal explains more than a family that leads nowhere.
    for error in sorted(errors, key=lambda one: one.errno in _UNREACHABLE):
        raise error
    text = "no answer in time"
    raise TimeoutError(text)


def _begun(address: Address, errors: list[OSError]) -> socket.socket | None:
    """A connection that is being opened; None when it fails at once, which is then in `errors`."""
    family, kind, protocol, _, where = address
    try:
        link = socket.socket(family, kind, protocol)
    except OSError as error:
        errors.append(error)
        return None
    link.setblocking(False)  # noqa: FBT003 (only by position)
    code = link.connect_ex(where)
    if code in {0, errno.EINPROGRESS}:
        return link
    link.close()
    errors.append(OSError(code, os.strerror(code)))
    return None
