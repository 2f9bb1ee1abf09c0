"""The control plane's REST interface, from the caller's side.

Rule: the only module that imports httpx. Each failure becomes one clear `CliError`.
"""

import errno
import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import httpx

from control_plane.cli.contexts.store import DEFAULT_SERVER
from control_plane.cli.errors import Failed, Misused, NotAllowed, Refused, Unavailable, Unreachable
from control_plane.cli.program import program
from control_plane.cli.text import visible
from schemas.redaction import without_secrets

Document = dict[str, Any]

PAGE_SIZE: Final = 200

_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
_TRIES: Final = 3
_PAUSE: Final = 0.5
_BLOCK: Final = 1024 * 1024
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_PARTIAL: Final = 206
_EMPTY: Final = 204
_BAD_REQUEST: Final = 400
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_WRONG_NAME: Final = (62, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""

_EXPIRED: Final = 10
_NO_WAY: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.ETIMEDOUT)
_IS_HTTPS: Final = "is it https://?"
_WANTS_TLS: Final = "https"
"""In the 400 with which nginx, Caddy and others answer HTTP at a port of HTTPS."""

_AWAY: Final = (502, 503, 504)


class ControlPlane:
    """One control plane. Every method may raise `Refused`, `Unreachable` or `Failed`."""

    def __init__(self, server: str = DEFAULT_SERVER, token: str | None = None, reason: str | None = None) -> None:
        self.server = without_secrets(require_url(server))
        headers = {"Authorization": f"Bearer {_require_token(token)}"} if token else {}
        if reason:
            headers["Backhaul-Reason"] = quote(reason, safe=" ")
        try:
            self._http = _client(server, base_url=require_url(server), headers=headers)
        except (ValueError, httpx.InvalidURL, ImportError) as error:
            raise Misused(f"{self.server}: {error}") from error  # noqa: EM102, TRY003 - both parts come from outside

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def trigger(self, client_id: str, body: Mapping[str, Any], idempotency_key: str) -> Document:
        """Trigger an upload; the key makes it safe to send the request again when the answer is lost."""
        headers = {"Idempotency-Key": idempotency_key}
        return self.call("POST", f"/trigger-download/{segment(client_id)}", json=dict(body), headers=headers)

    def status(self, client_id: str) -> Document:
        """One client: whether it is connected, and its current upload."""
        return self.call("GET", f"/status/{segment(client_id)}")

    def clients(self, **filters: object) -> Document:
        """Every client, all pages of them."""
        return self.pages("/clients", "clients", filters)

    def uploads(self, *, most: int | None = None, **filters: object) -> Document:
        """Uploads, newest first; `most` stops early."""
        return self.pages("/uploads", "uploads", filters, most)

    def upload(self, upload_id: str, client_id: str | None = None) -> Document:
        """One upload. Ids are unique per client only: `client_id` is needed where several clients have this one."""
        return self.call("GET", _upload_path(upload_id), params=_of(client_id))

    def cancel(self, upload_id: str, client_id: str | None = None) -> Document:
        """End an upload."""
        return self.call("POST", f"{_upload_path(upload_id)}/cancel", params=_of(client_id))

    def retry(self, upload_id: str, client_id: str | None = None) -> Document:
        """Start an upload that failed again, under a new id."""
        return self.call("POST", f"{_upload_path(upload_id)}/retry", params=_of(client_id))

    def url(self, upload_id: str, client_id: str | None = None) -> Document:
        """A URL that reads the object."""
        return self.call("GET", f"{_upload_path(upload_id)}/url", params=_of(client_id))

    def files(self, client_id: str, pattern: str, **filters: object) -> Document:
        """The files on a client that match, all pages of them."""
        return self.pages(f"/clients/{segment(client_id)}/files", "files", {"pattern": pattern, **filters})

    def readiness(self) -> Document:
        """Broker, database and object store, and what the probe found; "not ready" is a result too."""
        return self._read(self._send("GET", "/health/ready"), accept=(200, 503))

    def pages(self, path: str, name: str, filters: Mapping[str, object], most: int | None = None) -> Document:
        """All pages as one document: the first page's members with the rows of all, which are its member `name`.

        `most` stops early, and then the member `cut` is true if there are more. Filters without a value are left out.
        """
        given = {key: value for key, value in filters.items() if value not in (None, [], ())}
        whole = page = self.call("GET", path, params={"limit": min(most or PAGE_SIZE, PAGE_SIZE), **given})
        rows = list(page[name])
        while (cursor := page.get("cursor")) and (most is None or len(rows) < most):
            page = self.call("GET", path, params={"limit": PAGE_SIZE, **given, "cursor": cursor})
            rows += page[name]
        cut = {"cut": True} if most is not None and (page.get("cursor") or len(rows) > most) else {}
        return {**{key: value for key, value in whole.items() if key != "cursor"}, name: rows[:most], **cut}

    def call(
        self, method: str, path: str, *, repeatable: bool = False, empty: bool = False, **request: object
    ) -> Document:
        """One request; `request` has httpx's arguments `json`, `params`, `headers`.

        A GET, what has an Idempotency-Key, and what is `repeatable` is sent again after a broken connection. A call
        that answers with nothing (204) is `empty`; in any other place such an answer is that of a foreign server.
        """
        response = self._send(method, path, repeatable=repeatable, **request)
        return {} if empty and response.status_code == _EMPTY else self._read(response)

    def delete(self, path: str, params: Mapping[str, str] | None = None) -> None:
        """A DELETE with an empty answer."""
        response = self._send("DELETE", path, params=params)
        if not response.is_success:
            self._read(response)

    def lines(
        self, path: str, params: Mapping[str, Sequence[str] | str], headers: Mapping[str, str] | None = None
    ) -> Iterator[str]:
        """The lines of a text of any length, with their ends, as they arrive."""
        try:
            with self._http.stream("GET", path, params=dict(params), headers=headers) as response:
                if not response.is_success:
                    response.read()
                    self._read(response)
                # Not httpx's lines: a name of a file may hold other characters that end one.
                rest = b""
                for block in response.iter_bytes():
                    *whole, rest = (rest + block).split(b"\n")
                    yield from (f"{line.decode()}\n" for line in whole)
                if rest:
                    yield rest.decode()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _send(self, method: str, path: str, *, repeatable: bool = False, **given: object) -> httpx.Response:
        """Send a request, and send it again after a broken connection where that is safe."""
        request: dict[str, Any] = given
        repeatable = repeatable or method == "GET" or "Idempotency-Key" in request.get("headers", {})
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
        hint = f"name it with --server or BACKHAUL_URL, or run `{program()} up`"
        return Unreachable(f"no control plane at {self.server}: {failure_text(error, self.server)} ({hint})")

    def _read(self, response: httpx.Response, accept: tuple[int, ...] = ()) -> Document:
        if response.status_code == _EMPTY and response.request.method == "DELETE":
            return {}
        try:
            document = response.json()
        except ValueError:
            document = None
        if not response.is_success and response.status_code not in accept:
            plain = document is None and self.server.startswith("http:") and response.status_code == _BAD_REQUEST
            if plain and _WANTS_TLS in response.text.lower():
                text = f"no control plane at {self.server}: {_IS_HTTPS}"
                raise Failed(text)
            raise _refused(response, document)
        if not isinstance(document, dict):
            text = f"what answers at {self.server} is not a Backhaul control plane"
            raise Failed(text)
        return document


def read_object(url: str, start: int = 0) -> Iterator[bytes]:
    """The bytes of the object at a presigned URL from `start` on, in blocks."""
    host = urlsplit(url).netloc
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with _client(url) as http, http.stream("GET", url, headers=headers) as response:
            if start and response.status_code != _PARTIAL:
                text = f"the object store at {host} answered {response.status_code} to the rest of an object"
                raise Failed(text)
            if not response.is_success:
                text = f"the object store at {host} answered {response.status_code} to its own URL"
                raise Failed(text)
            yield from response.iter_raw(_BLOCK)
    except httpx.TransportError as error:
        raise Unreachable(f"no object store at {host}: {failure_text(error, url)}") from error  # noqa: EM102, TRY003


def failure_text(error: Exception, url: str) -> str:
    """Why a connection to `url` failed, one sentence for each cause; without any header or body of the request."""
    sentences = (_sentence(cause) for cause in _causes(error))
    if found := next(filter(None, sentences), None):
        return found
    if isinstance(error, httpx.TimeoutException):
        return "it accepted the connection and does not answer"
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
        return "it ends the connection without an answer" + (f": {_IS_HTTPS}" if url.startswith("http:") else "")
    return type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what led to it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _sentence(cause: BaseException) -> str | None:
    match cause:
        case ssl.SSLCertVerificationError() if cause.verify_code in _WRONG_NAME:
            return "its certificate is for another name"
        case ssl.SSLCertVerificationError() if cause.verify_code == _EXPIRED:
            return "its certificate has expired"
        case ssl.SSLCertVerificationError():
            return "its certificate is from an authority that is not trusted here: SSL_CERT_FILE names a file of those"
        case ssl.SSLError():
            return f"it does not speak TLS, or none that fits ({cause.reason or 'SSL'}): is it http://?"
        case socket.gaierror():
            return f"its name cannot be resolved ({cause.strerror})"
        case ConnectionRefusedError():
            return "nothing listens there"
        case httpx.ConnectTimeout():
            return f"no connection within {_TIMEOUT.connect:.0f} s"
        case OSError() if cause.errno in _NO_WAY:
            return f"it cannot be reached ({cause.strerror})"
        case httpx.ProxyError():
            return f"the proxy of the environment refuses it ({visible(cause)})"
        case _:
            return None


def _client(url: str, **options: Any) -> httpx.Client:  # noqa: ANN401 - the options of httpx
    """A connection to `url`. A proxy of the environment is for hosts beyond this machine; SSL_CERT_FILE is for all."""
    trust = urlsplit(url).hostname not in _LOOPBACK
    try:
        # Loading the authorities takes a while, and http:// needs none.
        verify = httpx.create_ssl_context() if url.startswith("https:") else False
    except (OSError, ssl.SSLError) as error:
        file = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
        raise Misused(f"SSL_CERT_FILE={file}: {error.strerror or error}") from error  # noqa: EM102, TRY003
    return httpx.Client(timeout=_TIMEOUT, trust_env=trust, verify=verify, **options)


def _require_token(token: str) -> str:
    if not (token.isascii() and token.isprintable() and " " not in token):
        message = "the bearer token has characters that no header can carry: is it the whole token, and nothing else?"
        raise Misused(message)
    return token


def _refused(response: httpx.Response, document: object) -> Refused:
    """One line out of a problem document (RFC 9457), or out of the answer of a proxy."""
    problem = document if isinstance(document, dict) else {"status": response.status_code}
    title = problem.get("title") or f"HTTP {response.status_code} {response.reason_phrase}"
    detail = problem.get("detail")
    parts = [visible(part) for part in (title, detail) if part and isinstance(part, str)]
    text = parts[-1] if parts[-1].lower().startswith(parts[0].lower()) else ": ".join(parts)
    if response.status_code == _UNAUTHORIZED:
        text += f" (give a token with --token-file or BACKHAUL_TOKEN; `{program()} token create --help` explains it)"
    if response.status_code in (_UNAUTHORIZED, _FORBIDDEN):
        return NotAllowed(text, problem)
    if response.status_code in _AWAY:
        return Unavailable(text, problem, retry_after=_seconds(response.headers.get("Retry-After")))
    return Refused(text, problem)


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` in seconds; None where it is a date, or missing."""
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None


def _upload_path(upload_id: str) -> str:
    return f"/uploads/{segment(upload_id)}"


def _of(client_id: str | None) -> dict[str, str]:
    return {} if client_id is None else {"client_id": client_id}


def segment(text: str) -> str:
    """The text as one level of a path; `Misused` for a name that would leave its level (`..`) or be empty."""
    if text in ("", ".", ".."):
        raise Misused(f"{text!r} names nothing")  # noqa: EM102, TRY003
    return quote(text, safe="")


def require_url(server: str) -> str:
    """The URL of a control plane, checked; `Misused`."""
    try:
        parts = urlsplit(server)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid:
        raise Misused(f"{server!r} is not a server: write http://host:port")  # noqa: EM102, TRY003
    return server.rstrip("/")
