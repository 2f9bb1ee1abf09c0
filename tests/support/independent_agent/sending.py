"""PUTs, and what their answers mean.

Rule: a PUT runs on a thread and changes nothing; its result is handled in the loop.
"""

import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.support.independent_agent.connection import Connection
from tests.support.independent_agent.types import LAST, RETRIES, Json, Refused, digest_of, unspelled
from tests.support.independent_agent.upload import Upload


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect."""

    def redirect_request(self, *_: Any) -> None:
        """Leave the answer as it is."""


class Sender(Connection):
    """Sends parts."""

    opener = urllib.request.build_opener(NoRedirect)

    # --- sending; on a thread ---

    def put(self, upload: Upload, number: int, url: Json) -> None:
        """One PUT; its result goes into the queue."""
        try:
            body = self.read(upload, number)
            status, headers, text = self.send(upload, url, self.body(upload, number, body))
        except (OSError, Refused) as error:
            gone = isinstance(error, Refused | FileNotFoundError)
            self.queue.put(("call", self.changed if gone else self.failed, upload, number, str(error)))
            return
        self.queue.put(("call", self.answered, upload, number, status, headers, text))

    def body(self, upload: Upload, number: int, body: bytes) -> bytes:
        """The bytes that are sent: they are those that were digested."""
        if digest_of(upload.digest, body) != upload.digests.get(number) or len(body) != upload.extent(number)[1]:
            raise Refused("source_changed")
        return body

    def headers(self, url: Json) -> dict[str, str]:
        """The given headers, and the type."""
        return {**url.get("headers", {}), "Content-Type": "application/octet-stream"}

    def send(self, upload: Upload, url: Json, body: bytes) -> tuple[int, Any, str]:
        """The request."""
        headers = {**self.headers(url), "Content-Length": str(len(body))}
        paced = self.paced(upload, body) if upload.rate else body
        request = urllib.request.Request(url["url"], paced, headers, method="PUT")  # noqa: S310
        try:
            with self.opener.open(request, timeout=30) as answer:
                return answer.status, answer.headers, ""
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read(4096).decode(errors="replace")

    def paced(self, upload: Upload, body: bytes) -> Iterator[bytes]:
        """The body at the rate of the upload."""
        for at in range(0, len(body), 65_536):
            piece = body[at : at + 65_536]
            time.sleep(len(piece) / upload.rate if upload.rate else 0)
            yield piece

    # --- the answer to a PUT ---

    def answered(self, upload: Upload, number: int, status: int, headers: Any, text: str) -> None:
        """What it means."""
        code = (re.search("<Code>(.*?)</Code>", text) or [None, None])[1] if "<Error>" in text else None
        etag = headers.get("ETag")
        if 200 <= status < 300 and etag is not None:
            self.done(upload, number, etag)
        elif status == 412:
            self.done(upload, number, "")
        elif status == 404 and code in {"NoSuchUpload", "NoSuchKey"}:
            self.over(upload, number, Refused("upload_gone", code))
        elif status == 400 and code == "BadDigest":
            self.mismatch(upload, number)
        elif self.is_refusal(status, code):
            self.forbidden(upload, number, status, code)
        else:
            self.failed(upload, number, f"{status} {code}", float(headers.get("Retry-After") or 0))

    def is_refusal(self, status: int, code: str | None) -> bool:
        """Whether the object store refuses, and not something in its place."""
        return code is not None and code != "SlowDown" and 400 <= status < 500 and status not in {408, 409, 425, 429}

    def done(self, upload: Upload, number: int, etag: str) -> None:
        """The part is stored."""
        upload.sending.discard(number)
        upload.grants.pop(number, None)
        if upload.ended is None and number not in upload.stored:
            upload.stored.add(number)
            upload.etags[number] = (LAST, etag)
            self.proceed(upload)

    def over(self, upload: Upload, number: int, refused: Refused) -> None:
        """The part ends the upload."""
        upload.sending.discard(number)
        if upload.ended is None:
            self.end(upload, refused)

    def changed(self, upload: Upload, number: int, _text: str) -> None:
        """The bytes of a part are others than before."""
        self.over(upload, number, Refused("source_changed"))

    def mismatch(self, upload: Upload, number: int) -> None:
        """The object store received other bytes."""
        if not self.unchanged(upload):
            self.changed(upload, number, "")
        elif self.count(upload, "mismatch", number) >= 3:
            self.over(upload, number, Refused("digest_mismatch"))
        else:
            self.later(upload, number, 0.2)

    def forbidden(self, upload: Upload, number: int, status: int, code: str | None) -> None:
        """A new URL; the second refusal within the life of a URL is reported."""
        _, expires, _ = upload.grants.pop(number, ({}, 0.0, 0.0))
        upload.sending.discard(number)
        alive = time.monotonic() < expires
        if alive and self.count(upload, "refusal", number) >= 2:
            self.over(upload, number, Refused("storage_refused", f"{status} {code}"))
        else:
            self.proceed(upload)

    def failed(self, upload: Upload, number: int, text: str, after: float = 0.0) -> None:
        """Again, with backoff."""
        tries = self.count(upload, "failure", number)
        if tries >= RETRIES:
            self.over(upload, number, Refused("storage_unavailable", text))
        else:
            self.later(upload, number, max(after, random.uniform(0, min(60, 2**tries))))

    def count(self, upload: Upload, what: str, number: int) -> int:
        """How often this has happened to the part."""
        upload.counts[what, number] = upload.counts.get((what, number), 0) + 1
        return upload.counts[what, number]

    def later(self, upload: Upload, number: int, seconds: float) -> None:
        """Send the part again in so many seconds."""
        upload.sending.discard(number)
        upload.retry_at[number] = time.monotonic() + seconds
        self.at(seconds, lambda: None)

    def read(self, upload: Upload, number: int) -> bytes:
        """The bytes of a part."""
        offset, size = upload.extent(number)
        with open(unspelled(upload.path), "rb") as file:
            file.seek(offset)
            return file.read(size)

    def proceed(self, upload: Upload) -> None:
        """Send what can be sent, and request what is missing."""
        raise NotImplementedError

    def end(self, upload: Upload, refused: Refused | None, status: str = "success") -> None:
        """The upload is over for the agent."""
        raise NotImplementedError

    def unchanged(self, upload: Upload) -> bool:
        """Whether the file is that of the offer."""
        raise NotImplementedError
