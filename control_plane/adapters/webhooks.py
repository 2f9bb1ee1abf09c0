"""Sends webhook messages over HTTP/1.1.

Rule: the address is checked after the name was resolved, and the connection is made to that address: a name that
resolves differently a moment later changes nothing. No redirect is followed, and no body is read.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

import h11

from control_plane.domain.webhooks import ReceiverAnswer

TIMEOUT: Final = 20.0
"""Seconds for a whole request, from the resolution of the name to the end of the answer."""

CONNECT_TIMEOUT: Final = 5.0
RESOLVERS: Final = 32
"""Names that are resolved at the same time. A look-up cannot be stopped, so these threads do nothing else."""

MAX_HEAD: Final = 32 * 1024
"""Bytes of the head of an answer; its body is not read."""

MAX_URL: Final = 2_048
_MAX_WAIT: Final = 86_400.0
_MAX_REASON: Final = 200
_PORTS: Final = {"http": 80, "https": 443}
_AGENT: Final = f"backhaul/{version('backhaul')}"
_EMBEDDED: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
"""IPv6 networks whose last four bytes are an IPv4 address: NAT64, and the old form of IPv4-compatible addresses."""

_NOT_PUBLIC: Final = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "fec0::/10", "3fff::/20")))
"""Special networks that `is_global` of some versions of Python takes for public: RFC 6890, 7526, 3879, 9637."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class _Refused(Exception):
    """This program sends nothing there."""


class HttpWebhookSender:
    """`services.ports.WebhookSender`.

    Private, loopback, link-local and other addresses that are not of the public internet are refused, unless they are
    in one of `networks`. Plain HTTP is sent to addresses in `networks` only. `trust` verifies the receivers.
    """

    def __init__(self, networks: Sequence[str] = (), trust: ssl.SSLContext | None = None) -> None:
        self._networks = [ip_network(one, strict=False) for one in networks]
        self._trust = trust or ssl.create_default_context()
        self._resolvers = ThreadPoolExecutor(RESOLVERS, "webhook-resolver")

    def refusal(self, url: str) -> str | None:
        try:
            parts = _split(url)
            if (address := _literal(parts)) is not None:
                self._require_allowed(address, parts.scheme)
        except _Refused as refused:
            return str(refused)
        if parts.scheme == "http" and not self._networks:
            return "https:// is needed: plain HTTP is sent only to addresses in WEBHOOK_NETWORKS"
        return None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> ReceiverAnswer:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._post(_split(url), headers, body)
        except _Refused as refused:
            return ReceiverAnswer(status=None, error=str(refused))
        except TimeoutError:
            return ReceiverAnswer(status=None, error=f"no answer within {TIMEOUT:.0f} s")
        except ssl.SSLCertVerificationError as error:
            return ReceiverAnswer(status=None, error=f"its certificate is not trusted: {error.verify_message}")
        except (OSError, ssl.SSLError) as error:
            nothing = isinstance(error, ConnectionRefusedError)
            return ReceiverAnswer(
                status=None, error="nothing listens there" if nothing else str(error.strerror or error)
            )
        except (h11.RemoteProtocolError, EOFError) as error:
            return ReceiverAnswer(status=None, error=f"it does not answer in HTTP/1.1: {error}")

    async def _post(self, url: SplitResult, headers: Mapping[str, str], body: bytes) -> ReceiverAnswer:
        reader, writer = await self._connect(url)
        try:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            given = {"User-Agent": _AGENT, **headers, "Content-Length": str(len(body)), "Connection": "close"}
            request = h11.Request(
                method="POST",
                target=target,
                headers=[("Host", url.netloc), *((name, one) for name, one in given.items())],
            )
            for event in (request, h11.Data(body), h11.EndOfMessage()):
                writer.write(connection.send(event) or b"")
            # A receiver may answer, and close, before it has read all.
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            return await _answer(connection, reader)
        finally:
            # Not `close` and `wait_closed`: a receiver need not take part in the end of TLS.
            writer.transport.abort()

    async def _connect(self, url: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the first address that accepts one; every address is checked before it is tried."""
        port = url.port or _PORTS[url.scheme]
        look_up = partial(socket.getaddrinfo, url.hostname, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._resolvers, look_up)
        refusals: list[Exception] = []
        for address in dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found):
            try:
                # A scope (`%eth0`) belongs to link-local addresses only.
                self._require_allowed(ip_address(address.partition("%")[0]), url.scheme)
                tls = {"ssl": self._trust, "server_hostname": url.hostname} if url.scheme == "https" else {}
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    return await asyncio.open_connection(address, port, **tls)  # type: ignore[arg-type]
            except TimeoutError:
                refusals.append(_Refused(f"no connection within {CONNECT_TIMEOUT:.0f} s"))
            except (_Refused, OSError) as error:
                refusals.append(error)
        raise refusals[0] if refusals else _Refused("its name has no address")

    def _require_allowed(self, address: Address, scheme: str) -> None:
        inside = any(one in network for one in _forms(address) for network in self._networks)
        if not inside and not all(_is_public(one) for one in _forms(address)):
            message = f"{address} is no address of the public internet: WEBHOOK_NETWORKS can allow it"
            raise _Refused(message)
        if not inside and scheme == "http":
            message = f"https:// is needed for {address}: plain HTTP is sent only to addresses in WEBHOOK_NETWORKS"
            raise _Refused(message)


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader) -> ReceiverAnswer:
    """The status and `Retry-After`. The body is not read: the status alone counts."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            break
        if event is h11.NEED_DATA:
            data = await reader.read(MAX_HEAD)
            connection.receive_data(data)
        elif not isinstance(event, h11.InformationalResponse):
            message = "the connection ended"
            raise EOFError(message)
    named = {bytes(name).lower(): bytes(value).decode("latin-1") for name, value in event.headers}
    accepted = 200 <= event.status_code < 300  # noqa: PLR2004 - RFC 9110 section 15.3
    reason = bytes(event.reason).decode("latin-1")
    return ReceiverAnswer(
        status=event.status_code,
        error=None if accepted else f"HTTP {event.status_code} {reason}".strip()[:_MAX_REASON],
        retry_after=_seconds(named.get(b"retry-after", "")),
    )


def _seconds(text: str) -> float | None:
    """`Retry-After` in seconds; None for a date, which needs this machine's clock."""
    return min(float(text), _MAX_WAIT) if text.isascii() and text.isdigit() and len(text) < 10 else None  # noqa: PLR2004


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0 and len(url) <= MAX_URL
        usable = usable and url.isascii() and url.isprintable() and " " not in url
        (parts.hostname or "").encode("idna")
    except ValueError:
        usable = False
    if not usable:
        message = f"a URL looks like https://host/path, in ASCII, with at most {MAX_URL:,} characters"
        raise _Refused(message)
    if "@" in parts.netloc or parts.fragment:
        message = "the URL must hold neither credentials nor a fragment"
        raise _Refused(message)
    return parts


def _literal(parts: SplitResult) -> Address | None:
    try:
        return ip_address((parts.hostname or "").partition("%")[0])
    except ValueError:
        return None


def _forms(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 address that an IPv6 one leads to."""
    yield address
    if isinstance(address, IPv6Address):
        for inner in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())):
            if inner is not None:
                yield inner
        if any(address in network for network in _EMBEDDED):
            yield IPv4Address(address.packed[-4:])


def _is_public(address: Address) -> bool:
    special = address.is_multicast or address.is_reserved or any(address in network for network in _NOT_PUBLIC)
    return address.is_global and not special
