"""Signature Version 4 in a URL's query, for one bucket: byte for byte what botocore produces.

Rule: botocore determines the address of the bucket and the scope once; each URL then takes string operations and two
hashes. Computation only. The steps are those of "Authenticating Requests: Using Query Parameters" (S3 API reference).
"""

import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, quote, urlsplit

from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import NoCredentialsError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ALGORITHM: Final = "AWS4-HMAC-SHA256"
PAYLOAD: Final = "UNSIGNED-PAYLOAD"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SAFE: Final = "-._~"
_SCOPE_PARTS: Final = 5
_SAMPLE: Final = "sample"


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """Where the objects of a bucket are: `prefix` is the URL up to the key, `scope` the credential after the date."""

    prefix: str
    path: str
    host: str
    scope: str

    @classmethod
    def of(cls, url: str, key: str) -> "BucketAddress":
        """Parse a URL that botocore presigned for the object `key`, which needs no quoting."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = parts.port
        named = port is None or port == _DEFAULT_PORTS.get(parts.scheme)
        credential = parse_qs(parts.query)["X-Amz-Credential"][0].rsplit("/", _SCOPE_PARTS - 1)
        path = parts.path.removesuffix(key)
        return cls(
            prefix=f"{parts.scheme}://{parts.netloc}{path}",
            path=path,
            host=host if named else f"{host}:{port}",
            scope="/".join(credential[2:]),
        )


class QuerySigner:
    """Signs requests for one bucket. `credentials` is called for every signature: they may have been renewed."""

    def __init__(self, address: BucketAddress, credentials: Callable[[], ReadOnlyCredentials]) -> None:
        self._address = address
        self._credentials = credentials

    def url(
        self,
        method: str,
        s3_key: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        expires: int,
        now: float | None = None,
    ) -> str:
        """The URL of one request.

        `headers`, with lower-case names and values without outer or double blanks, must then be sent as they are, and
        so must the host. `expires` are seconds from `now`, which is an instant (s).
        """
        address, credentials = self._address, self._credentials()
        stamp = _stamp(int(time.time() if now is None else now))
        scope = f"{stamp[:8]}/{address.scope}"
        signed = {"host": address.host, **headers}
        names = sorted(signed)
        key = _quoted_path(s3_key)
        parameters = [f"{name}={quote(value, _SAFE)}" for name, value in query.items()]
        parameters += [
            f"X-Amz-Algorithm={ALGORITHM}",
            f"X-Amz-Credential={quote(credentials.access_key or '', _SAFE)}%2F{scope.replace('/', '%2F')}",
            f"X-Amz-Date={stamp}",
            f"X-Amz-Expires={expires}",
            f"X-Amz-SignedHeaders={'%3B'.join(names)}",
        ]
        if credentials.token is not None:
            parameters.append(f"X-Amz-Security-Token={quote(credentials.token, _SAFE)}")
        lines = "".join(f"{name}:{signed[name]}\n" for name in names)
        canonical = "\n".join(
            (method, address.path + key, "&".join(sorted(parameters)), lines, ";".join(names), PAYLOAD),
        )
        digest = sha256(canonical.encode()).hexdigest()
        signing_key = _signing_key(credentials.secret_key, scope)
        signature = hmac.digest(signing_key, f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}".encode(), "sha256").hex()
        return f"{address.prefix}{key}?{'&'.join(parameters)}&X-Amz-Signature={signature}"


def signer_for(client: "S3Client", bucket: str, credentials: Credentials | None) -> QuerySigner:
    """A signer for the bucket as this client addresses it; without credentials it raises what botocore raises."""
    url = client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": _SAMPLE})
    if credentials is None:
        raise NoCredentialsError
    return QuerySigner(BucketAddress.of(url, _SAMPLE), credentials.get_frozen_credentials)


@lru_cache(maxsize=4)
def _signing_key(secret: str, scope: str) -> bytes:
    """Four hashes that are the same for a day."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


@lru_cache(maxsize=4)
def _stamp(second: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))


@lru_cache(maxsize=256)
def _quoted_path(s3_key: str) -> str:
    return quote(s3_key, f"{_SAFE}/")
