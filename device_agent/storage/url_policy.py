"""The origins that parts may be sent to (the setting `UPLOAD_HOSTS`), and the only parser of granted URLs.

Rule: default-deny, and one grammar. A URL that the grammar does not match is refused; one that it matches is parsed
here only, so no second parser can read another host from it. Names are compared as written, never resolved.
"""

import re
from collections.abc import Iterable
from typing import Final, Self
from urllib.parse import unquote_to_bytes

from msgspec import Struct
from msgspec.structs import replace

from device_agent.errors import HostNotAllowed, SettingsError
from device_agent.reach.proxy import authority
from schemas.environment import is_loopback

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65_535
_MAX_URL: Final = 8_192

# RFC 3986 without its traps: no user information, no fragment, no percent-encoded or non-ASCII host, no backslash.
# A name with an empty label, or one of over 63 letters, cannot be looked up: `socket.getaddrinfo` raises UnicodeError.
_HOST: Final = (
    r"\[[0-9A-Fa-f:.]{2,45}\]"
    r"|(?![A-Za-z0-9._-]*(?:\.\.|[A-Za-z0-9_-]{64}))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?"
)
_PORT: Final = r"[0-9]{1,5}"
_URL: Final = re.compile(
    rf"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://(?P<host>{_HOST})(?::(?P<port>{_PORT}))?"
    r"(?P<target>(?:/[!-~]*)?(?:\?[!-~]*)?)"
)
_ENTRY: Final = re.compile(
    rf"(?:(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://)?(?P<host>{_HOST})(?::(?P<port>{_PORT}))?(?P<path>/(?:(?![?#\\])[!-~])*)?"
)
_EXAMPLE: Final = "https://s3.eu-central-1.amazonaws.com/my-bucket/"
_PLAIN_COMPONENT: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
_DOTS: Final = frozenset({b".", b".."})


class ParsedUrl(Struct, frozen=True):
    """The parts of a URL. `host` is in lower case and without brackets; `target` is path and query as written."""

    scheme: str
    host: str
    port: int
    target: str


def origin_of(scheme: str, host: str, port: int) -> str:
    """`scheme://host[:port]`, as the header Host has it, which is signed: without the default port.

    >>> origin_of("https", "::1", 9000), origin_of("https", "s3.example.com", 443)
    ('https://[::1]:9000', 'https://s3.example.com')
    """
    return f"{scheme}://{authority(host, port).removesuffix(f':{DEFAULT_PORTS[scheme]}')}"


class Origin(Struct, frozen=True):
    """One origin that parts may be sent to. `path` is the decoded components below which a URL must lie."""

    scheme: str
    host: str
    port: int
    path: tuple[bytes, ...] = ()

    def allows(self, url: ParsedUrl) -> bool:
        """Whether the URL has this origin, and lies below its path by whole components."""
        if (self.scheme, self.host, self.port) != (url.scheme, url.host, url.port):
            return False
        components = _components(url.target.partition("?")[0]) if self.path else ()
        # A path that another server may read as a way out of the prefix is not below it.
        if components is None:
            return False
        return not self.path or (len(components) > len(self.path) and components[: len(self.path)] == self.path)


class UploadHosts(Struct, frozen=True):
    """The origins that parts may be sent to; empty means none. A `policy` narrows them; `source` is where it stands."""

    origins: frozenset[Origin] = frozenset()
    policy: frozenset[Origin] | None = None
    source: str = ""

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """Read the setting; `SettingsError` names a bad entry.

        An entry is `https://host[:port][/path/]`. Without a scheme it means HTTPS, and on a loopback address HTTP too;
        any other `http://` must be written.

        >>> hosts = UploadHosts.parse(["https://S3.example.com/logs/"])
        >>> hosts.allowed("https://s3.example.com/logs/a.txt?partNumber=1").target
        '/logs/a.txt?partNumber=1'
        """
        return cls(frozenset(origin for entry in entries for origin in _origins(entry.strip())))

    def narrowed(self, entries: Iterable[str] | None, source: str) -> Self:
        """The same, where the `hosts` of a policy allow it too; None narrows nothing. `SettingsError` as in `parse`."""
        return self if entries is None else replace(self, policy=type(self).parse(entries).origins, source=source)

    def allowed(self, url: str) -> ParsedUrl:
        """Parse `url`; `HostNotAllowed` when it is not a plain HTTP URL, or no origin allows it.

        A missing port is the scheme's default. The error text has the narrowest entry that would allow the URL.
        """
        parsed = parse_url(url)
        if not any(origin.allows(parsed) for origin in self.origins):
            text = f"UPLOAD_HOSTS of this device does not allow the granted URL; {_entry(parsed)} would"
            raise HostNotAllowed(text)
        if self.policy is not None and not any(origin.allows(parsed) for origin in self.policy):
            text = f"hosts in {self.source} of this device does not allow the granted URL; {_entry(parsed)} would"
            raise HostNotAllowed(text)
        return parsed


def parse_url(url: str) -> ParsedUrl:
    """Parse a URL by the grammar above; `HostNotAllowed`, without the URL in it, for any other text.

    >>> parse_url("https://S3.example.com/bucket/key?partNumber=1")
    ParsedUrl(scheme='https', host='s3.example.com', port=443, target='/bucket/key?partNumber=1')
    """
    match = _URL.fullmatch(url) if len(url) <= _MAX_URL else None
    if match is None or "#" in match["target"] or "\\" in match["target"]:
        text = "a granted URL is not plain http(s)://host[:port]/path?query"
        raise HostNotAllowed(text)
    scheme = match["scheme"].lower()
    port = int(match["port"] or DEFAULT_PORTS[scheme])
    if not 0 < port <= _MAX_PORT:
        text = f"a granted URL names port {port}, which does not exist"
        raise HostNotAllowed(text)
    target = match["target"]
    return ParsedUrl(scheme, _plain(match["host"]), port, target if target.startswith("/") else f"/{target}")


def _origins(entry: str) -> tuple[Origin, ...]:
    """The origins that one entry allows."""
    match = _ENTRY.fullmatch(entry)
    path = _components(match["path"] or "/", folder=True) if match else None
    if match is not None and path is not None:
        host = _plain(match["host"])
        schemes = (match["scheme"].lower(),) if match["scheme"] else _unwritten(host)
        ports = [int(match["port"] or DEFAULT_PORTS[scheme]) for scheme in schemes]
        if all(0 < port <= _MAX_PORT for port in ports):
            return tuple(Origin(scheme, host, port, path) for scheme, port in zip(schemes, ports, strict=True))
    text = f"UPLOAD_HOSTS: {entry!r} is not https://host[:port][/path/], such as {_EXAMPLE}"
    raise SettingsError(text)


def _unwritten(host: str) -> tuple[str, ...]:
    """The schemes of an entry that names none."""
    return ("https", "http") if is_loopback(host) else ("https",)


def _components(path: str, *, folder: bool = False) -> tuple[bytes, ...] | None:
    """The decoded components of a path; None for one that servers read differently.

    That is a component that is empty, a dot, two dots, or that holds an encoded slash or NUL, or a `%` that encodes
    nothing. The last one may be empty; it is left out of a `folder`.
    """
    if re.search("%(?![0-9A-Fa-f]{2})", path):
        return None
    components = tuple(unquote_to_bytes(one) for one in path.removeprefix("/").split("/"))
    inner = components[:-1]
    if b"" in inner or _DOTS & set(components) or any(b"/" in one or b"\0" in one for one in components):
        return None
    return inner if folder and not components[-1] else components


def _entry(url: ParsedUrl) -> str:
    first = url.target.partition("?")[0].split("/")[1]
    plain = _PLAIN_COMPONENT.fullmatch(first) is not None and first.encode() not in _DOTS
    return f"{origin_of(url.scheme, url.host, url.port)}/{f'{first}/' if plain else ''}"


def _plain(host: str) -> str:
    return host.strip("[]").lower()
