"""An agent written from protocol.md alone, with bare paho and urllib: no code of the product, only the protocol.

Rule: it imports nothing of the product. What it needs to know it reads off the wire, as an agent in any language would.
"""

import base64
import hashlib
import json
import threading
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

MIB = 1024 * 1024
LAST = 2**53 - 1


class ForeignAgent:
    """Offers a file, uploads what it is granted, reports etags; one upload at a time, negotiated form only."""

    def __init__(self, client_id: str, host: str, port: int, default_file: Path) -> None:
        self.client_id = client_id
        self.default_file = default_file
        self.install_id = str(uuid.uuid4())
        self.received: list[dict[str, Any]] = []
        self.closed = threading.Event()
        self.outcome = ""
        self._root = f"fleet/v1/{client_id}"
        self._sequence = 0
        self._config: dict[str, Any] = {}
        self._begun_by = ""
        self._etags: dict[int, str] = {}
        self._sent: set[int] = set()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.will_set(f"{self._root}/presence", self._presence("offline", LAST), qos=1, retain=True)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 600
        self._client.connect(host, port, clean_start=False, properties=properties)
        self._client.loop_start()

    def stop(self) -> None:
        """Close without DISCONNECT: the broker publishes the will at once."""
        self._client.loop_stop()

    def _presence(self, status: str, sequence: int) -> str:
        return json.dumps(
            {
                "client_id": self.client_id,
                "status": status,
                "install_id": self.install_id,
                "epoch": 1,
                "sequence": sequence,
                "default_file": str(self.default_file),
            }
        )

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(f"{self._root}/command", qos=1)
        client.publish(f"{self._root}/presence", self._presence("online", 0), qos=1, retain=True)
        hello = {"install_id": self.install_id, "active": [], "more": False}
        self._publish_response(
            {"message_id": uuid.uuid4().hex, "action": "hello", "status": "success", "payload": hello}
        )

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        command = json.loads(message.payload)
        self.received.append(command)
        match command["action"]:
            case "download_file":
                self._config = command["payload"]["upload_config"]
                self._begun_by = command["message_id"]
                self._offer()
            case "grant_parts":
                self._upload(command["payload"])
            case "close_upload":
                self.outcome = command["payload"]["outcome"]
                self.closed.set()

    def _parts(self) -> list[bytes]:
        data, size = self.default_file.read_bytes(), self._config["chunk_size"]
        return [data[at : at + size] for at in range(0, len(data), size)] or [b""]

    def _offer(self) -> None:
        wanted = [
            {
                "part_number": number,
                "size": len(data),
                "digest": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
            }
            for number, data in enumerate(self._parts(), 1)
            if number not in self._sent
        ]
        if wanted:
            self._answer("in_progress", {"wanted_parts": wanted[:12]})
        else:
            self._answer("success", {})

    def _upload(self, grant: dict[str, Any]) -> None:
        for first, last in grant.get("completed_parts", []):
            self._sent |= set(range(first, last + 1))
        parts = self._parts()
        for granted in grant["upload_config"].get("presigned_urls", []):
            number = granted["part_number"]
            headers = {**granted.get("headers", {}), "Content-Type": "application/octet-stream"}
            request = urllib.request.Request(granted["url"], parts[number - 1], headers, method="PUT")  # noqa: S310
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                self._etags[number] = answer.headers["ETag"]
            self._sent.add(number)
        self._offer()

    def _answer(self, status: str, more: dict[str, Any]) -> None:
        self._sequence += 1
        payload = {
            "upload_id": self._config["upload_id"],
            "attempt": self._config["attempt"],
            "owner": self._config["owner"],
            "file_path": str(self.default_file),
            "file_size": self.default_file.stat().st_size,
            "etags": {str(number): etag for number, etag in self._etags.items()},
            **more,
        }
        self._etags = {}
        message = {"message_id": self._begun_by, "action": "download_file", "status": status, "payload": payload}
        self._publish_response({**message, "sequence": self._sequence})

    def _publish_response(self, message: dict[str, Any]) -> None:
        self._client.publish(f"{self._root}/response", json.dumps(message), qos=1)
