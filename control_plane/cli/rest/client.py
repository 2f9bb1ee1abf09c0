"""The control plane's REST interface, from the caller's side.

Rule: the only module that imports httpx. Each failure becomes one clear `CliError`.
"""

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import httpx

from control_plane.cli.errors import Failed, Misused, Refused, Unavailable, Unreachable
from control_plane.cli.text import visible

Document = dict[str, Any]

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"
PAGE_SIZE: Final = 200

_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
_TRIES: Final = 3
_PAUSE: Final = 0.5
_BLOCK: Final = 1024 * 1024
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_UNAUTHORIZED: Final = 401
_AWAY: Final = (502, 503, 504)


class ControlPlane:
    """One control plane. Every method may raise `Refused`, `Unreachable` or `Failed`."""

    def __init__(self, server: str = DEFAULT_SERVER, token: str | None = None) -> None:
        self.server = _require_url(server)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A proxy of the environment is for hosts beyond this machine.
        trust = urlsplit(self.server).hostname not in _LOOPBACK
        try:
            self._http = httpx.Client(base_url=self.server, headers=headers, timeout=_TIMEOUT, trust_env=trust)
        except (ValueError, httpx.InvalidURL, ImportError) as error:
            raise Misused(f"{server}: {error}") from error  # noqa: EM102, TRY003 - both parts come from outside

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def trigger(self, client_id: str, body: Mapping[str, Any], idempotency_key: str) -> Document:
        """Trigger an upload; the key makes it safe to send the request again when the answer is lost."""
        headers = {"Idempotency-Key": idempotency_key}
        return self._call("POST", f"/trigger-download/{_segment(client_id)}", json=dict(body), headers=headers)

    def status(self, client_id: str) -> Document:
        """One client: whether it is connected, and its current upload."""
        return self._call("GET", f"/status/{_segment(client_id)}")

    def clients(self, **filters: object) -> Document:
        """Every client, all pages of them."""
        return self._pages("/clients", "clients", filters)

    def uploads(self, *, most: int | None = None, **filters: object) -> Document:
        """Uploads, newest first; `most` stops early."""
        return self._pages("/uploads", "uploads", filters, most)

    def upload(self, upload_id: str, client_id: str | None = None) -> Document:
        """One upload. Ids are unique per client only: `client_id` is needed where several clients have this one."""
        return self._call("GET", _upload_path(upload_id), params=_of(client_id))

    def cancel(self, upload_id: str, client_id: str | None = None) -> Document:
        """End an upload."""
        return self._call("POST", f"{_upload_path(upload_id)}/cancel", params=_of(client_id))

    def retry(self, upload_id: str, client_id: str | None = None) -> Document:
        """Start an upload that failed again, under a new id."""
        return self._call("POST", f"{_upload_path(upload_id)}/retry", params=_of(client_id))

    def url(self, upload_id: str, client_id: str | None = None) -> Document:
        """A URL that reads the object."""
        return self._call("GET", f"{_upload_path(upload_id)}/url", params=_of(client_id))

    def files(self, client_id: str, pattern: str, **filters: object) -> Document:
        """The files on a client that match, all pages of them."""
        return self._pages(f"/clients/{_segment(client_id)}/files", "files", {"pattern": pattern, **filters})

    def readiness(self) -> Document:
        """Broker, database and object store, and what the probe found; "not ready" is a result too."""
        return self._read(self._send("GET", "/health/ready"), accept=(200, 503))

    def _pages(self, path: str, name: str, filters: Mapping[str, object], most: int | None = None) -> Document:
        """All pages as one document: the first page's members with the rows of all."""
        given = {key: value for key, value in filters.items() if value not in (None, [], ())}
        whole = page = self._call("GET", path, params={"limit": min(most or PAGE_SIZE, PAGE_SIZE), **given})
        rows = list(page[name])
        while (cursor := page.get("cursor")) and (most is None or len(rows) < most):
            page = self._call("GET", path, params={"limit": PAGE_SIZE, **given, "cursor": cursor})
            rows += page[name]
        return {**{key: value for key, value in whole.items() if key != "cursor"}, name: rows[:most]}

    def _call(self, method: str, path: str, **request: object) -> Document:
        return self._read(self._send(method, path, **request))

    def _send(self, method: str, path: str, **given: object) -> httpx.Response:
        """Send a request, and send it again after a broken connection where that is safe."""
        request: dict[str, Any] = given
        repeatable = method == "GET" or "Idempotency-Key" in request.get("headers", {})
        for tries_left in reversed(range(_TRIES if repeatable else 1)):
            try:
                return self._http.request(method, path, **request)
            except httpx.ConnectError as error:
                raise self._unreachable(error) from error
            except httpx.TransportError as error:
                if not tries_left:
                    raise self._unreachable(error) from error
                time.sleep(_PAUSE)
        raise AssertionError(path)

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        why = "nobody answers" if isinstance(error, httpx.ConnectError) else visible(error) or type(error).__name__
        text = f"no control plane at {self.server} ({why}): name it with --server or BACKHAUL_URL, or run `backhaul up`"
        return Unreachable(text)

    def _read(self, response: httpx.Response, accept: tuple[int, ...] = ()) -> Document:
        try:
            document = response.json()
        except ValueError:
            document = None
        if not response.is_success and response.status_code not in accept:
            raise _refused(response, document)
        if not isinstance(document, dict):
            text = f"what answers at {self.server} is not a Backhaul control plane"
            raise Failed(text)
        return document


def read_object(url: str) -> Iterator[bytes]:
    """The bytes of the object at a presigned URL, in blocks."""
    trust = urlsplit(url).hostname not in _LOOPBACK
    host = urlsplit(url).netloc
    try:
        with (
            httpx.Client(timeout=_TIMEOUT, trust_env=trust) as http,
            http.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response,
        ):
            if not response.is_success:
                text = f"the object store at {host} answered {response.status_code} to its own URL"
                raise Failed(text)
            yield from response.iter_raw(_BLOCK)
    except httpx.TransportError as error:
        raise Unreachable(f"the object store at {host} does not answer: {error}") from error  # noqa: EM102, TRY003


def _refused(response: httpx.Response, document: object) -> Refused:
    """One line out of a problem document (RFC 9457), or out of the answer of a proxy."""
    problem = document if isinstance(document, dict) else {"status": response.status_code}
    title = problem.get("title") or f"HTTP {response.status_code} {response.reason_phrase}"
    detail = problem.get("detail")
    parts = [visible(part) for part in (title, detail) if part and isinstance(part, str)]
    text = parts[-1] if parts[-1].lower().startswith(parts[0].lower()) else ": ".join(parts)
    if response.status_code == _UNAUTHORIZED:
        text += " (give a token with --token or BACKHAUL_TOKEN; `backhaul token create` makes one)"
    if response.status_code in _AWAY:
        return Unavailable(text, problem, retry_after=_seconds(response.headers.get("Retry-After")))
    return Refused(text, problem)


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` in seconds; None where it is a date, or missing."""
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None


def _upload_path(upload_id: str) -> str:
    return f"/uploads/{_segment(upload_id)}"


def _of(client_id: str | None) -> dict[str, str]:
    return {} if client_id is None else {"client_id": client_id}


def _segment(text: str) -> str:
    """One level of a path; `Misused` for a name that would leave its level (`..`) or be empty."""
    if text in ("", ".", ".."):
        raise Misused(f"{text!r} names nothing")  # noqa: EM102, TRY003
    return quote(text, safe="")


def _require_url(server: str) -> str:
    try:
        parts = urlsplit(server)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid:
        raise Misused(f"{server!r} is not a server: write http://host:port")  # noqa: EM102, TRY003
    return server.rstrip("/")
