"""Asks a control plane for a bundle, by a code that an operator approves.

Rule: the key is made here and never sent. The bundle is sealed to a key of this request, and one with another root of
trust than the expected one is refused.
"""

import http.client
import json
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from nacl import bindings
from nacl.exceptions import CryptoError
from nacl.utils import random

from device_agent.errors import EnrolmentFailed
from device_agent.tls import TlsFiles, client_context, failure_text
from schemas.environment import is_loopback
from schemas.signing.canonical import SignedKind, fingerprint, to_text
from schemas.signing.ed25519 import SEED_SIZE, Signer
from schemas.signing.enrolment import MAX_BUNDLE, Bundle, EnrollAnswer, PollAnswer, enroll_payload, poll_payload
from schemas.signing.trust import root_digest, trust_first
from schemas.topics import Topics

TIMEOUT: Final = 30.0
_OK: Final = 200
_EARLY: Final = 429
_GONE: Final = 404
_AWAY: Final = 500
_NONCE: Final = 16


class Exchange:
    """One request, from its first call to the bundle. `ca_file` has authorities beside those of the system."""

    def __init__(self, url: str, *, ca_file: str | None = None, root_sha256: str) -> None:
        """`EnrolmentFailed` for a URL that may not be asked."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        if not parts.hostname or not (secure or (parts.scheme == "http" and is_loopback(parts.hostname))):
            text = f"{url}: write https://HOST: what is sent and read here must be the control plane's"
            raise EnrolmentFailed(text)
        self._host, self._port, self._secure = parts.hostname, parts.port, secure
        self._path = parts.path.rstrip("/")
        self._tls = TlsFiles(ca_file)
        self._root_sha256 = root_sha256.lower()
        self._signer = Signer(random(SEED_SIZE))
        self._seal_to, self._open_with = bindings.crypto_box_keypair()
        self._sequence = 0

    @property
    def fingerprint(self) -> str:
        """Of the key of this device: what an operator compares."""
        return fingerprint(self._signer.verifier.public_key)

    def ask(self) -> EnrollAnswer:
        """The code to show; `EnrolmentFailed`, `OSError` while the control plane cannot be reached."""
        seal_to, nonce = to_text(self._seal_to), to_text(random(_NONCE))
        signed = self._signed(enroll_payload(seal_to, nonce))
        body = {"key": self._signer.verifier.text, "seal_to": seal_to, "nonce": nonce, "signature": signed}
        status, content = self._post("/enroll", body)
        if status == _GONE:
            text = "this control plane enrols no devices by code (ENROLL=on)"
            raise EnrolmentFailed(text)
        if status != _OK:
            text = f"the control plane refuses: {_detail(content, status)}"
            raise EnrolmentFailed(text)
        return msgspec.json.decode(content, type=EnrollAnswer)

    def wait(self, answer: EnrollAnswer, sleep: Callable[[float], None] = time.sleep) -> Bundle:
        """The bundle, once an operator has approved the code; `EnrolmentFailed` when its time is over."""
        interval, end = float(answer.interval), time.monotonic() + answer.expires_in
        while time.monotonic() < end:
            sleep(interval)
            try:
                status, content = self._poll(answer.device_code)
            except OSError:
                # The network of a device that is being installed comes and goes.
                continue
            if status == _OK:
                found = msgspec.json.decode(content, type=PollAnswer)
                interval = float(found.interval)
                if found.sealed is not None:
                    return self._opened(found.sealed)
            elif status == _EARLY:
                interval += answer.interval
            elif status < _AWAY:
                text = "the code has expired, or was rejected"
                raise EnrolmentFailed(text)
        text = "nobody approved the code in its time"
        raise EnrolmentFailed(text)

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
            if bundle.root is None or root_digest(bundle.root) != self._root_sha256:
                text = "the bundle has another root of trust than this device was told to trust: nothing is stored"
                raise EnrolmentFailed(text)
            trust_first(bundle.root, Topics(bundle.topic_root).keys(), self._root_sha256)
        except (ValueError, CryptoError) as error:
            text = "what came is no bundle for this device"
            raise EnrolmentFailed(text) from error
        return msgspec.structs.replace(bundle, device_seed=to_text(self._signer.seed))

    def _post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """One call, without redirects; `OSError`."""
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=client_context(self._tls))
            if self._secure
            else http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        )
        try:
            connection.request("POST", self._path + path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read(2 * MAX_BUNDLE)
        except http.client.HTTPException as error:
            text = f"{self._host}: {type(error).__name__}"
            raise ConnectionError(text) from error
        finally:
            connection.close()


def reached(error: OSError) -> str:
    """Why a control plane was not reached, for a person."""
    return failure_text(error)


def _detail(content: bytes, status: int) -> str:
    try:
        return str(json.loads(content)["detail"])[:200]
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
