"""Requests a bundle from a control plane, by a code that an operator approves.

Rule: the key is made here and never sent. The bundle is sealed to a key of this request, and one with another root of
trust than the expected one is refused.
"""

import http.client
import json
import math
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.utils import random

from device_agent.enrolment.request_file import STRIDE, StoredRequest
from device_agent.errors import EnrolmentFailed
from device_agent.tls import TlsFiles, client_context, failure_text
from schemas.environment import is_loopback
from schemas.signing.canonical import PUBLIC_KEY_SIZE, SignedKind, fingerprint, from_text, to_text
from schemas.signing.ed25519 import SEED_SIZE, Signer
from schemas.signing.enrolment import MAX_BUNDLE, Bundle, EnrollAnswer, PollAnswer, enroll_payload, poll_payload
from schemas.signing.trust import root_digest, trust_first
from schemas.topics import Topics

T = TypeVar("T")

TIMEOUT: Final = 30.0
RETRY: Final = 10.0
"""Seconds between two calls of `/enroll` that nobody answers for now."""

_OK: Final = 200
_EARLY: Final = 429
_GONE: Final = 404
_AWAY: Final = 500
_NONCE: Final = 16


class _Other(ConnectionError):
    """No answer to what was asked: from the page of a network that wants a login, a proxy, or a busy control plane."""


class Exchange:
    """One request, from its first call to the bundle. `ca_file` has authorities beside those of the system.

    With `stored` it continues a request of an earlier start. `note` takes one line for a person: why it still waits.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: str | None = None,
        root_sha256: str,
        stored: StoredRequest | None = None,
        note: Callable[[str], None] = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`EnrolmentFailed` for a URL that may not be called."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        if not parts.hostname or not (secure or (parts.scheme == "http" and is_loopback(parts.hostname))):
            text = f"{url}: write https://HOST: what is sent and read here must be the control plane's"
            raise EnrolmentFailed(text)
        self._host, self._port, self._secure = parts.hostname, parts.port, secure
        self._path = parts.path.rstrip("/")
        self._tls = TlsFiles(ca_file)
        self._note, self._sleep = note, sleep
        self._noted = ""
        if stored is None:
            seed, opens = random(SEED_SIZE), random(PUBLIC_KEY_SIZE)
            stored = StoredRequest(url=url, root_sha256=root_sha256.lower(), seed=to_text(seed), opens=to_text(opens))
        self._signer = Signer(from_text(stored.seed, SEED_SIZE))
        self._open_with = from_text(stored.opens, PUBLIC_KEY_SIZE)
        self._seal_to = bindings.crypto_scalarmult_base(self._open_with)
        self.stored = msgspec.structs.replace(stored, sequence=stored.sequence + STRIDE)
        """What goes into the file: before the first call, after `ask`, and after a request that failed."""

        self._sequence = stored.sequence

    @property
    def fingerprint(self) -> str:
        """Of the key of this device: what an operator compares."""
        return fingerprint(self._signer.verifier.public_key)

    def ask(self, token: str | None = None, serial: str | None = None) -> EnrollAnswer:
        """The code to show; `EnrolmentFailed`, `OSError` while the control plane cannot be reached.

        `token` is that of a batch, and `serial` what its list calls this device.
        """
        seal_to, nonce = to_text(self._seal_to), to_text(random(_NONCE))
        signed = self._signed(enroll_payload(seal_to, nonce, token, serial))
        body = {"key": self._signer.verifier.text, "seal_to": seal_to, "nonce": nonce, "signature": signed}
        body |= {name: value for name, value in (("token", token), ("serial", serial)) if value is not None}
        while True:
            try:
                status, content = self._post("/enroll", body)
                if status == _EARLY or status >= _AWAY:
                    # Many devices of one address ask at once, or the broker's accounts cannot be changed now.
                    raise _Other(_detail(content, status))  # noqa: TRY301 - one way to wait
                answer = _decoded(content, EnrollAnswer) if status == _OK else None
                break
            except _Other as error:
                self._say(error)
                self._sleep(RETRY)
        if status == _GONE:
            text = "this control plane enrols no devices by code (ENROLL=on)"
            raise EnrolmentFailed(text)
        if answer is None:
            text = f"the control plane refuses: {_detail(content, status)}"
            raise EnrolmentFailed(text)
        self.stored = msgspec.structs.replace(
            self.stored, device_code=answer.device_code, user_code=answer.user_code, interval=answer.interval
        )
        return answer

    def forget(self) -> None:
        """The request is over: the next start makes another one, with the same key."""
        self.stored = msgspec.structs.replace(self.stored, device_code=None, user_code="")

    def wait(self, expires_in: float | None = None) -> Bundle:
        """The bundle, once an operator has approved the code; `EnrolmentFailed` when its time is over.

        `expires_in` (s) is not known for a request of an earlier start: then the control plane says when it is over.
        """
        device_code = self.stored.device_code
        if device_code is None:
            text = "nothing was asked"
            raise EnrolmentFailed(text)
        interval = float(self.stored.interval)
        end = math.inf if expires_in is None else time.monotonic() + expires_in
        while time.monotonic() < end:
            self._sleep(interval)
            try:
                status, content = self._poll(device_code)
                found = _decoded(content, PollAnswer) if status == _OK else None
            except OSError as error:
                # The network of a device that is being installed comes and goes.
                self._say(error)
                continue
            if found is not None:
                interval = float(found.interval)
                if found.sealed is not None:
                    return self._opened(found.sealed)
            elif status == _EARLY:
                interval += self.stored.interval
            elif status < _AWAY:
                text = "the code has expired, or was rejected"
                raise EnrolmentFailed(text)
        text = "nobody approved the code in its time"
        raise EnrolmentFailed(text)

    def _say(self, error: OSError) -> None:
        """One line for each new cause."""
        text = f"{self._host}: {error if isinstance(error, _Other) else reached(error)}; trying again"
        if text != self._noted:
            self._noted = text
            self._note(text)

    def _poll(self, device_code: str) -> tuple[int, bytes]:
        self._sequence += 1
        signed = self._signed(poll_payload(device_code, self._sequence))
        return self._post("/enroll/poll", {"device_code": device_code, "sequence": self._sequence, "signature": signed})

    def _signed(self, payload: bytes) -> str:
        return to_text(self._signer.sign(SignedKind.ENROLL, "", payload).value)

    def _opened(self, sealed: str) -> Bundle:
        from base64 import urlsafe_b64decode  # noqa: PLC0415 (needed once)

        try:
            data = urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
            content = bindings.crypto_box_seal_open(data, self._seal_to, self._open_with)
            bundle = msgspec.json.decode(content, type=Bundle)
            if bundle.root is None or root_digest(bundle.root) != self.stored.root_sha256:
                text = "the bundle has another root of trust than this device was told to trust: nothing is stored"
                raise EnrolmentFailed(text)
            trust_first(bundle.root, Topics(bundle.topic_root).keys(), self.stored.root_sha256)
        except (ValueError, RecursionError, CryptoError) as error:
            text = "what came is no bundle for this device"
            raise EnrolmentFailed(text) from error
        return msgspec.structs.replace(bundle, device_seed=to_text(self._signer.seed))

    def _post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """One call, without redirects: the status, and JSON. `OSError`, also for an answer that is something else."""
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=client_context(self._tls))
            if self._secure
            else http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        )
        try:
            connection.request("POST", self._path + path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read(2 * MAX_BUNDLE)
            if not _is_document(content):
                text = f"status {answer.status} and no JSON: this is no control plane; does the network want a login?"
                raise _Other(text)
            return answer.status, content
        except http.client.HTTPException as error:
            text = f"{self._host}: {type(error).__name__}"
            raise ConnectionError(text) from error
        finally:
            connection.close()


def reached(error: OSError) -> str:
    """Why a control plane was not reached, for a person."""
    return failure_text(error)


def _is_document(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


def _decoded(content: bytes, kind: type[T]) -> T:
    """An answer of this shape; `_Other`."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        text = f"this is no answer of a control plane: {error}"
        raise _Other(text) from error


def _detail(content: bytes, status: int) -> str:
    try:
        return str(json.loads(content)["detail"])[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"status {status}"
