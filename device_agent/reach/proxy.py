"""An HTTP proxy: its URL, and the request CONNECT (RFC 9110 section 9.3.6) for a connection through it.

Rule: the proxy resolves the name of the target. No text has the credentials, or bytes that the proxy sent.
"""

import base64
import re
import socket
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from device_agent.errors import ProxyFailed, SettingsError
from device_agent.reach.heads import NoHttp, read_head
from schemas.environment import host_name

DEFAULT_PORT: Final = 3128
"""The port of a proxy's URL without one: that of Squid, and not 80, where no proxy listens."""

_OPEN: Final = range(200, 300)
_FAILED_BEHIND: Final = frozenset({500, 502, 503, 504})
_UNAUTHORIZED: Final = frozenset({401, 407})
"""tinyproxy answers wrong credentials with 401."""

_FORBIDDEN: Final = 403


class HttpProxy(Struct, frozen=True):
    """Where the proxy is; `authorization` is the value of Proxy-Authorization, if it has one."""

    host: str
    port: int
    authorization: str | None = None

    def __str__(self) -> str:
        return authority(self.host, self.port)

    def __repr__(self) -> str:
        # A traceback may show it: without the password.
        return f"HttpProxy({str(self)!r})"

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `http://[user:password@]host[:port]`; `SettingsError`, which does not repeat it, for anything else.

        Both of the credentials may be percent-encoded, and must be where they have one of `:/?#[]@%`.

        >>> str(HttpProxy.parse("http://till-7:secret@proxy.example.com:8080"))
        'proxy.example.com:8080'
        """
        try:
            parts = urlsplit(url)
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            port = DEFAULT_PORT if parts.port is None else parts.port
            more = parts.path.strip("/") or parts.query or parts.fragment
            if parts.scheme != "http" or not parts.hostname or more or not port or ":" in user:
                raise _wrong()
            host_name(parts.hostname)
            secret = base64.b64encode(f"{user}:{password}".encode()).decode() if parts.username is not None else None
        except ValueError as error:
            raise _wrong() from error
        return cls(parts.hostname, port, None if secret is None else f"Basic {secret}")

    def connect(self, link: socket.socket, host: str, port: int, until: float) -> None:
        """Make `link`, a connection to this proxy, one to `host`; `ProxyFailed` when it refuses or is no proxy."""
        target = authority(host, port)
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.authorization is not None:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        try:
            link.sendall("\r\n".join([*lines, "", ""]).encode())
            status = read_head(link, until).status
        except TimeoutError as error:
            text = f"the proxy {self} does not answer in time about {target}"
            raise ProxyFailed(text) from error
        except NoHttp as error:
            text = f"the proxy {self} is not one: {error}"
            raise ProxyFailed(text) from error
        except OSError as error:
            text = f"the proxy {self} ended the connection: {error.strerror or error}"
            raise ProxyFailed(text) from error
        if status not in _OPEN:
            text = f"the proxy {self} {self.meaning(status, target)}"
            raise ProxyFailed(text)

    def meaning(self, status: int, target: str) -> str:
        """What a status of the proxy's own means, and who can change it."""
        if status in _UNAUTHORIZED:
            if self.authorization is None:
                return f"asks for a user and a password ({status}): put them into its URL"
            return f"does not accept its user and password ({status})"
        if status == _FORBIDDEN:
            return f"forbids {target} (403): its administrator must allow it"
        if status in _FAILED_BEHIND:
            return f"cannot reach {target} ({status})"
        return f"does not open connections (CONNECT is answered {status}): is it a proxy?"


def authority(host: str, port: int) -> str:
    """Host and port as HTTP writes them.

    >>> authority("::1", 443), authority("bücher.example", 443)
    ('[::1]:443', 'xn--bcher-kva.example:443')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host_name(host).decode()}:{port}"


def shown(url: str) -> str:
    """The URL of a proxy without its password.

    >>> shown("http://till-7:secret@proxy.example.com:8080")
    'http://till-7:(set)@proxy.example.com:8080'
    """
    # As `urlsplit` reads it: blanks before it and line breaks in it are left out, and the last @ ends the password.
    return re.sub(r"^([^:]*://[^:]*):.*@", r"\1:(set)@", url, flags=re.DOTALL)


def _wrong() -> SettingsError:
    return SettingsError("must be http://[user:password@]host:port, with %40 for @ and %3A for : in the credentials")
