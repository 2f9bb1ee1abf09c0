"""PUT requests with presigned URLs, as clients send them: for the probe.

Rule: these requests have the headers that an agent sends, and do not go through boto3.
"""

import re
from dataclasses import dataclass
from typing import Final

from botocore.awsrequest import AWSRequest
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from control_plane.adapters.object_store.errors import PASSING_STATUS
from schemas.values import PresignedPart

TIMEOUT: Final = 30
"""Seconds to connect, and to wait for bytes."""

_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")


@dataclass(frozen=True, slots=True)
class PutResult:
    """The response to one PUT; `etag` is without quotes, `code` is the object store's error code."""

    status: int
    etag: str = ""
    code: str = ""

    @property
    def taken(self) -> bool:
        """Whether the bytes were stored."""
        return 200 <= self.status < 300  # noqa: PLR2004

    @property
    def refused(self) -> bool:
        """Whether the request was rejected as wrong, rather than the object store being busy or broken."""
        wrong = 400 <= self.status < 500  # noqa: PLR2004
        return wrong and self.status not in PASSING_STATUS and self.code != "RequestTimeout"


def put(grant: PresignedPart, body: bytes) -> PutResult:
    """PUT the bytes with the granted headers."""
    headers = {**grant.headers, "Content-Type": "application/octet-stream"}
    request = AWSRequest("PUT", grant.url, headers=headers, data=body).prepare()
    session = URLLib3Session(timeout=TIMEOUT, proxies=get_environ_proxies(grant.url))
    try:
        response = session.send(request)
        code = _CODE.search(response.content)
        etag = response.headers.get("ETag", "").strip('"')
        return PutResult(response.status_code, etag, code[1].decode() if code else "")
    finally:
        session.close()
