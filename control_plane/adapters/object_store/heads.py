"""HeadObject, once per upload, without botocore's overhead: a signed URL and a kept connection.

Rule: only a 200 with a size and a 404 are handled here. For everything else the request is repeated with boto3, which
handles retries, redirects and errors; behind an HTTP proxy all requests go through boto3.
"""

import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from botocore.credentials import Credentials
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from control_plane.adapters.object_store import buckets
from control_plane.adapters.object_store.clients import Bucket
from control_plane.adapters.object_store.errors import PASSING_STATUS
from control_plane.adapters.object_store.sigv4 import QuerySigner, signer_for
from control_plane.services.ports.object_store import ObjectInfo

TIMEOUT: Final = 20.0
LIFETIME: Final = 300
"""Seconds for which the URL is valid: enough for an object store with another time."""

_CHECKSUM: Final = "x-amz-checksum-"
_METADATA: Final = "x-amz-meta-"
_MODE: Final[Mapping[str, str]] = {"x-amz-checksum-mode": "ENABLED"}
_FOUND, _MISSING, _BUSY = 200, 404, 500


class Heads:
    """Sends HEAD requests, from any number of threads; there are as many connections as requests at one time."""

    def __init__(self, bucket: Bucket, credentials: Credentials | None, ca_bundle: str | None) -> None:
        self._bucket = bucket
        self._credentials = credentials
        self._ca_bundle = ca_bundle
        self._idle: list[HTTPConnection] = []
        self._plain = credentials is not None and not get_environ_proxies(bucket.client.meta.endpoint_url)
        self._signer: QuerySigner | None = None

    def head(self, s3_key: str) -> ObjectInfo | None:
        """The object of this key; None when it does not exist. Raises what boto3 raises."""
        if not self._plain:
            return buckets.head(self._bucket, s3_key)
        try:
            status, headers = self._request(s3_key)
        except (OSError, HTTPException):
            # The object store closed a kept connection, or is unreachable: boto3 finds out.
            return buckets.head(self._bucket, s3_key)
        if status == _FOUND and "content-length" in headers:
            return _info(headers)
        if status == _MISSING:
            return None
        info = buckets.head(self._bucket, s3_key)
        if status != _FOUND and status not in PASSING_STATUS and status < _BUSY:
            # boto3 succeeded: this object store does not accept HEAD by a presigned URL.
            self._plain = False
        return info

    def close(self) -> None:
        """Close the idle connections."""
        while connection := self._kept():
            connection.close()

    def _request(self, s3_key: str) -> tuple[int, Mapping[str, str]]:
        signer = self._signer = self._signer or signer_for(self._bucket.client, self._bucket.name, self._credentials)
        url = signer.url("HEAD", s3_key, query={}, headers=_MODE, expires=LIFETIME)
        connection = self._kept() or self._connection(url)
        kept = False
        try:
            connection.request("HEAD", url[url.index("/", len("https://")) :], headers=dict(_MODE))
            response = connection.getresponse()
            response.read()
            kept = not response.will_close
        finally:
            if kept:
                self._idle.append(connection)
            else:
                connection.close()
        return response.status, {name.lower(): value for name, value in response.getheaders()}

    def _kept(self) -> HTTPConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connection(self, url: str) -> HTTPConnection:
        parts = urlsplit(url)
        if parts.scheme == "http":
            return HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
        context = ssl.create_default_context(cafile=self._ca_bundle or get_cert_path(verify=True))
        return HTTPSConnection(parts.hostname or "", parts.port, timeout=TIMEOUT, context=context)


def _info(headers: Mapping[str, str]) -> ObjectInfo:
    customer = headers.get("x-amz-server-side-encryption-customer-algorithm")
    return ObjectInfo(
        size=int(headers["content-length"]),
        etag=headers.get("etag", "").strip('"'),
        metadata=_below(_METADATA, headers),
        encryption="customer" if customer else headers.get("x-amz-server-side-encryption"),
        checksums={name: value for name, value in _below(_CHECKSUM, headers).items() if name != "type"},
    )


def _below(prefix: str, headers: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)}
