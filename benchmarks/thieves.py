"""What a thief does with a stolen key: hold a connection, command a device, ask to be enrolled, make tokens.

Rule: each uses the key and nothing else of the fleet. Where a key alone reaches nothing, as one that signs commands,
the thief has an account of the broker beside it.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

import jwt
import paho.mqtt.client as paho
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from nacl import bindings
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.configuration import LOOPBACK
from control_plane.cli.simulate.packets import Connect, PacketType
from schemas.codec import decode, decode_response, encode
from schemas.messages import Command, ListFiles, Presence
from schemas.signing.canonical import SignedKind, to_text
from schemas.signing.ed25519 import SEED_SIZE, Signer
from schemas.signing.enrolment import enroll_payload
from schemas.topics import Channel, Topics

SILENCE: Final = 1.0
"""Seconds without an answer after which a device has not obeyed. An obeyed command is answered within milliseconds."""

_PACE: Final = 0.05
_PING: Final = bytes((PacketType.PINGREQ << 4, 0))
_LIFE: Final = 3_600
_ENOUGH: Final = 64


class Held:
    """A connection with a stolen password, which the thief keeps."""

    def __init__(self, port: int, username: str, password: str) -> None:
        self._socket = socket.create_connection((LOOPBACK, port), timeout=10)
        self._socket.sendall(Connect(client_id=username, username=username, password=password).encode())
        self._socket.recv(_ENOUGH)

    @property
    def ended(self) -> bool:
        """Whether the broker has ended it: a ping is not answered."""
        try:
            self._socket.sendall(_PING)
            return not self._socket.recv(_ENOUGH).endswith(bytes((PacketType.PINGRESP << 4, 0)))
        except OSError:
            return True

    def close(self) -> None:
        """Give it up."""
        self._socket.close()


class Commander:
    """Signs commands for one device, and publishes them by an account of the broker; a context manager."""

    def __init__(self, port: int, account: dict[str, str], signer: Signer, device: str) -> None:
        self._signer, self._topics, self._device = signer, Topics(), device
        self._session: str | None = None
        self._answered: dict[str, threading.Event] = {}
        self._heard = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, f"thief-{os.urandom(4).hex()}", protocol=paho.MQTTv5)
        self._client.username_pw_set(account["MQTT_USERNAME"], account["MQTT_PASSWORD"])
        self._client.on_message = self._message
        self._client.on_connect = self._connected
        self._client.connect(LOOPBACK, port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        if not self._heard.wait(30):
            message = f"no presence of {self._device} was heard"
            raise RuntimeError(message)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def refused(self) -> bool:
        """Command the device to list its files: whether it stays silent. It waits `SILENCE` seconds to be sure."""
        time.sleep(_PACE)
        name = os.urandom(16).hex()
        command = Command(name, "list_files", ListFiles("/**", limit=1), datetime.now(UTC), session=self._session)
        topic, payload = self._topics.command(self._device), encode(command)
        answered = self._answered[name] = threading.Event()
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = self._signer.sign(SignedKind.COMMAND, topic, payload).properties()
        self._client.publish(topic, payload, qos=1, properties=properties)
        return not answered.wait(SILENCE)

    def _connected(self, *_: object) -> None:
        topics = (self._topics.of(self._device, channel) for channel in (Channel.PRESENCE, Channel.RESPONSE))
        self._client.subscribe([(topic, 1) for topic in topics])

    def _message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if not message.payload:
            return
        if message.topic.endswith("/presence"):
            presence = decode(Presence, bytes(message.payload))
            if presence.status == "online":
                self._session = presence.session
                self._heard.set()
            return
        with suppress(ValueError):
            response = decode_response(bytes(message.payload))
            if event := self._answered.get(response.message_id):
                event.set()


def enroll_request(token: str) -> dict[str, Any]:
    """What a device of the thief's sends to `POST /enroll` with the stolen token of a batch; another one each time."""
    signer = Signer(os.urandom(SEED_SIZE))
    seal_to, nonce = to_text(bindings.crypto_box_keypair()[0]), to_text(os.urandom(16))
    signature = to_text(signer.sign(SignedKind.ENROLL, "", enroll_payload(seal_to, nonce, token, None)).value)
    return {
        "key": signer.verifier.text, "seal_to": seal_to, "nonce": nonce, "signature": signature, "token": token,
    }  # fmt: skip


class Provider:
    """An OpenID provider: its two documents over HTTP, and the key with which it signs tokens."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{LOOPBACK}:{port}"
        self._key = Ed25519PrivateKey.generate()
        self._number = 0
        provider = self

        class Documents(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = provider.discovery if self.path.startswith("/.well-known/") else provider.keys
                text = json.dumps(found).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Nothing is logged."""

        self._server = ThreadingHTTPServer((LOOPBACK, port), Documents)

    @property
    def discovery(self) -> dict[str, str]:
        """Where its keys are."""
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}

    @property
    def keys(self) -> dict[str, Any]:
        """Its one public key."""
        row = json.loads(OKPAlgorithm.to_jwk(self._key.public_key()))
        return {"keys": [{**row, "kid": str(self._number), "use": "sig", "alg": "EdDSA"}]}

    def token(self) -> str:
        """A token that may list clients, signed by the present key."""
        now = int(time.time())
        claims = {
            "iss": self.url, "sub": "thief", "aud": "backhaul", "iat": now, "exp": now + _LIFE,
            "jti": os.urandom(8).hex(), "client_id": "tool", "scope": "clients:read",
        }  # fmt: skip
        return jwt.encode(claims, self._key, "EdDSA", {"typ": "at+jwt", "kid": str(self._number)})

    def replace(self) -> None:
        """Another key in place of the leaked one."""
        self._key, self._number = Ed25519PrivateKey.generate(), self._number + 1

    @contextmanager
    def running(self) -> Iterator["Provider"]:
        """Serve the documents."""
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
