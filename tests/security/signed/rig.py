"""A control plane over fakes, and one device whose key is pinned.

Rule: `state` has everything that a message could change, so that "nothing applied" is one comparison.
"""

import asyncio
from typing import Any, Final, Self

import msgspec

from control_plane.domain.devices import Device, DeviceState
from control_plane.services.ports.messenger import Delivered, UserProperties
from control_plane.services.trust.keyring import ControlPlaneKey
from schemas.codec import encode
from schemas.messages import (
    ActiveUpload,
    AgentInfo,
    CurrentUpload,
    Hello,
    Presence,
    Response,
    Status,
    UploadReport,
)
from schemas.signing.canonical import SignedKind
from schemas.signing.claims import claim_of
from schemas.signing.ed25519 import Signer
from schemas.topics import Channel
from tests.support.fakes import CLIENT, Rig
from tests.support.uploads import wanted

DEVICE: Final = Signer(b"d" * 32)
LIAR: Final = Signer(b"l" * 32)
PLANE: Final = ControlPlaneKey(Signer(b"p" * 32))
SECRET: Final = b"s" * 32
SESSION: Final = "A" * 22
OTHER: Final = "till-2"
KINDS: Final = {
    Channel.RESPONSE: SignedKind.RESPONSE,
    Channel.STATUS: SignedKind.STATUS,
    Channel.PRESENCE: SignedKind.PRESENCE,
}


class SignedRig(Rig):
    """The rig with the key of a control plane; `CLIENT` is pinned to `DEVICE`, `OTHER` to `LIAR`."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        for client_id, signer in ((CLIENT, DEVICE), (OTHER, LIAR)):
            await self.registered(
                Device(client_id, DeviceState.ACTIVE, 1.0, "ana", public_key=signer.verifier.public_key)
            )
        return self

    async def registered(self, device: Device) -> None:
        """Store a device, and read the pins."""
        await self.database.write(lambda records: records.devices.save(device))
        await self.engine.pins.load()

    def signature(self, channel: Channel, payload: bytes, signer: Signer = DEVICE) -> UserProperties:
        """What this key signs for the topic of the client."""
        return tuple(signer.sign(KINDS[channel], self.topics.of(CLIENT, channel), payload).properties())

    async def send(
        self, channel: Channel, payload: bytes, properties: UserProperties | None = None, client_id: str = CLIENT
    ) -> None:
        """Deliver a message; with the device's own signature when `properties` is None."""
        signed = self.signature(channel, payload) if properties is None else properties
        self.engine.inbox.receive(Delivered(self.topics.of(client_id, channel), payload, properties=signed))
        await self.settle()
        if channel is Channel.PRESENCE:
            # Births are gathered for one commit; that pause is real time.
            await asyncio.sleep(0.07)
            await self.settle()

    async def online(self, **more: Any) -> None:  # noqa: ANN401
        """The device connects."""
        await self.send(Channel.PRESENCE, encode(presence(**more)))

    async def state(self) -> tuple[Any, ...]:
        """The client and its uploads as they are stored, and the commands that were published."""
        client = await self.database.read(lambda records: records.clients.get(CLIENT))
        uploads = await self.database.read(lambda records: records.uploads.open_of(CLIENT))
        return client, tuple(uploads), len(self.messenger.sent)

    @property
    def refused(self) -> list[str]:
        """Why each message was dropped."""
        return [str(facts["reason"]) for event, facts in self.events if event == "message.unverified"]


def presence(**more: Any) -> Presence:  # noqa: ANN401
    """A presence of the device."""
    fields: dict[str, Any] = {
        "status": "online",
        "install_id": f"install-{CLIENT}",
        "epoch": 5,
        "sequence": 0,
        "agent": AgentInfo("1.0", hostname="till"),
        "default_file": "/data/test-file.bin",
        "key": DEVICE.verifier.text,
        "session": SESSION,
        "keys_version": 1,
        **more,
    }
    return Presence(CLIENT, **fields)


def claimed(secret: bytes = SECRET, signer: Signer = DEVICE, **more: Any) -> bytes:  # noqa: ANN401
    """A presence with the claim of an enrolment."""
    claim = claim_of(secret, CLIENT, signer.verifier.public_key)
    return encode(presence(key=signer.verifier.text, claim=claim, **more))


def messages(upload_id: str) -> dict[str, tuple[Channel, bytes]]:
    """One message of each kind, about an upload that was dispatched; each would change something."""
    offer = UploadReport(
        upload_id=upload_id,
        attempt=1,
        owner="control-plane",
        file_path="/data/test-file.bin",
        file_size=100,
        wanted_parts=wanted(100),
    )
    hello = Hello("install", (ActiveUpload(upload_id, 1, 0, "in_progress", "control-plane"),))
    status = Status("uploading", CLIENT, epoch=5, uploads=(CurrentUpload(upload_id, 1, bytes_sent=7),))
    return {
        "presence": (Channel.PRESENCE, encode(presence(sequence=1, labels={"site": "berlin"}))),
        "response": (
            Channel.RESPONSE,
            encode(Response("m", "download_file", "in_progress", offer, epoch=5, sequence=1)),
        ),
        "hello": (Channel.RESPONSE, encode(Response("h", "hello", "success", hello, epoch=5))),
        "status": (Channel.STATUS, encode(status)),
    }


def altered_fields(payload: bytes) -> list[bytes]:
    """The message with each of its members changed, at every depth; each stays a message that decodes or nearly so."""
    return [msgspec.json.encode(one) for one in _altered(msgspec.json.decode(payload))]


def _altered(value: Any) -> list[Any]:  # noqa: ANN401
    match value:
        case dict():
            return [{**value, name: other} for name, one in value.items() for other in _altered(one)] + [
                {other: one for other, one in value.items() if other != name} for name in value
            ]
        case list():
            return [[*value[:n], other, *value[n + 1 :]] for n, one in enumerate(value) for other in _altered(one)]
        case bool():
            return [not value]
        case int() | float():
            return [value + 1]
        case str():
            return [f"{value}x"]
        case _:
            return ["x"]
