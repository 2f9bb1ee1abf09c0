"""PUT requests as a device sends them: a granted URL, its headers, the bytes.

Rule: limits are on the silence of one request. Every answer is a result; only no answer is an error. An answer such as
503 shows nothing of what the object store does, so the request is sent again.
"""

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, Self
from urllib.parse import urlsplit

from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from control_plane.adapters.object_store.errors import PASSING_STATUS
from schemas.values import PresignedPart

CONNECT_TIMEOUT: Final = 5
SILENCE: Final = 30
"""Seconds without a byte after which a request is given up."""

TRIES: Final = 3
_PAUSE: Final = 0.3
_NOT_IMPLEMENTED: Final = 501
_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
_REGION: Final = re.compile(rb"<Region>([a-z0-9-]{1,64})</Region>")
_CONDITION_FAILED: Final = frozenset({409, 412})


class NoAnswer(Exception):
    """The endpoint in the URL does not answer from here."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """The answer to one PUT; `etag` is without quotes, `code` is the object store's error code.

    `region` is the bucket's, if the answer names it; `skew` is the object store's clock minus this machine's (s).
    """

    status: int
    etag: str = ""
    code: str = ""
    region: str = ""
    version: str | None = None
    skew: float | None = None

    @property
    def taken(self) -> bool:
        """Whether the bytes were stored."""
        return 200 <= self.status < 300  # noqa: PLR2004

    @property
    def refused(self) -> bool:
        """Whether the request was rejected as wrong, rather than the object store being busy or broken."""
        return 400 <= self.status < 500 and not self.passing  # noqa: PLR2004

    @property
    def passing(self) -> bool:
        """Whether the object store was busy or broken: the same request may have another answer a moment later."""
        broken = self.status >= 500 and self.status != _NOT_IMPLEMENTED  # noqa: PLR2004
        return broken or self.status in PASSING_STATUS or self.code == "RequestTimeout"

    @property
    def condition_failed(self) -> bool:
        """Whether it was rejected because the object exists."""
        return self.status in _CONDITION_FAILED

    @property
    def answer(self) -> str:
        """The code, else the status, for a person."""
        return self.code or str(self.status)


class Puts:
    """Sends PUT requests over kept connections, from any thread."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._sessions: dict[str, URLLib3Session] = {}
        """By host, for the proxy of the environment is not that of every host."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for session in self._sessions.values():
            session.close()

    def send(self, grant: PresignedPart, body: bytes) -> PutResult:
        """The answer, the last of `TRIES` if they are passing; `NoAnswer` without one."""
        for tries in range(1, TRIES):
            result = self._sent(grant, body)
            if not result.passing:
                return result
            time.sleep(_PAUSE * tries)
        return self._sent(grant, body)

    def _sent(self, grant: PresignedPart, body: bytes) -> PutResult:
        headers = {**grant.headers, "Content-Type": "application/octet-stream"}
        request = AWSRequest("PUT", grant.url, headers=headers, data=body).prepare()
        sent_at = time.time()
        try:
            response = self._opened(grant.url).send(request)
            content = response.content
        except BotoCoreError as error:
            raise NoAnswer(type(error).__name__) from error
        return _result(response.status_code, response.headers, content, (sent_at + time.time()) / 2)

    def _opened(self, url: str) -> URLLib3Session:
        host = urlsplit(url).netloc
        if host not in self._sessions:
            session = URLLib3Session(
                timeout=(CONNECT_TIMEOUT, SILENCE),  # type: ignore[arg-type]
                max_pool_connections=self._connections,
                proxies=get_environ_proxies(url),
            )
            # Another thread may have been first; a session that was not used has no connection.
            self._sessions.setdefault(host, session)
        return self._sessions[host]


def _result(status: int, headers: Mapping[str, str], content: bytes, now: float) -> PutResult:
    code, region = _CODE.search(content), _REGION.search(content)
    return PutResult(
        status=status,
        etag=headers.get("ETag", "").strip('"'),
        code=code[1].decode() if code else "",
        region=headers.get("x-amz-bucket-region", "") or (region[1].decode() if region else ""),
        version=headers.get("x-amz-version-id"),
        skew=_skew(headers.get("Date"), now),
    )


def _skew(date: str | None, now: float) -> float | None:
    """The object store's clock minus this machine's (s); `Date` has whole seconds, so half a second is added."""
    if date is None:
        return None
    with suppress(ValueError):
        return round(parsedate_to_datetime(date).timestamp() + 0.5 - now, 1)
    return None
