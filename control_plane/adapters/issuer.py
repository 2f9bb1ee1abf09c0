"""Reads the documents of an OpenID provider.

Rule: no redirect is followed, no proxy of the environment is used, and an answer has a limit.
"""

import asyncio
import http.client
import ssl
from typing import Final
from urllib.parse import urlsplit

from control_plane.services.errors import Transient

TIMEOUT: Final = 5.0
MOST: Final = 256 * 1024
_OK: Final = 200


async def read_document(url: str) -> bytes:
    """The document at a URL (at most 256 KiB); `Transient` for every failure."""
    return await asyncio.to_thread(_read, url)


def _read(url: str) -> bytes:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection = _connection(parts.scheme, parts.hostname or "", parts.port)
        try:
            connection.request("GET", path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            data = answer.read(MOST + 1)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        text = f"{parts.hostname}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"
        raise Transient(text) from error
    if answer.status != _OK or len(data) > MOST:
        text = f"{parts.hostname} answered {answer.status} with {len(data)} bytes"
        raise Transient(text)
    return data


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=TIMEOUT)
