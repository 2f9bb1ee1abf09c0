"""The hosts that parts may be sent to (the setting `UPLOAD_HOSTS`), and the only parser of granted URLs.

Rule: default-deny, and one grammar. A URL that the grammar does not match is refused; one that it matches is parsed
here only, so no second parser can read another host from it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from device_agent.errors import HostNotAllowed, SettingsError

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_ENTRY_PORT: Final = DEFAULT_PORTS["https"]
_MAX_PORT: Final = 65_535
_MAX_URL: Final = 8_192

# RFC 3986 without its traps: no user information, no fragment, no percent-encoded or non-ASCII host, no backslash.
_HOST: Final = r"\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?"
_PORT: Final = r"[0-9]{1,5}"
_URL: Final = re.compile(
    rf"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://(?P<host>{_HOST})(?::(?P<port>{_PORT}))?"
    r"(?P<target>(?:/[!-~]*)?(?:\?[!-~]*)?)"
)
_ENTRY: Final = re.compile(rf"(?P<host>{_HOST})(?::(?P<port>{_PORT}))?")


@dataclass(frozen=True, slots=True)
class ParsedUrl:
    """The parts of a URL. `host` is in lower case and without brackets; `target` is path and query as written."""

    scheme: str
    host: str
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class UploadHosts:
    """The pairs of host and port that parts may be sent to; empty means none."""

    pairs: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """Read the setting: `host:port` each, without a port the one of HTTPS. `SettingsError` names a bad entry.

        >>> sorted(UploadHosts.parse(["minio:9000", "S3.example.com"]).pairs)
        [('minio', 9000), ('s3.example.com', 443)]
        """
        return cls(frozenset(_pair(entry) for entry in entries))

    def allowed(self, url: str) -> ParsedUrl:
        """Parse `url`; `HostNotAllowed` when it is not a plain HTTP URL, or its host is not listed.

        Names are compared as they are written, never resolved; a missing port is the scheme's default.
        """
        parsed = parse_url(url)
        if (parsed.host, parsed.port) not in self.pairs:
            text = f"{parsed.host}:{parsed.port} is not in UPLOAD_HOSTS of this device"
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


def _pair(entry: str) -> tuple[str, int]:
    match = _ENTRY.fullmatch(entry.strip())
    port = int(match["port"] or _ENTRY_PORT) if match else 0
    if match is None or not 0 < port <= _MAX_PORT:
        text = f"UPLOAD_HOSTS: {entry!r} is not host:port, such as s3.eu-central-1.amazonaws.com:443"
        raise SettingsError(text)
    return _plain(match["host"]), port


def _plain(host: str) -> str:
    return host.strip("[]").lower()
