"""The port `BrokerExaminer`: what an account may do at the broker, found out by doing it.

Rule: nothing that it publishes has a payload: every control plane and every device drops an empty message.
"""

import asyncio
import secrets
import socket
from dataclasses import dataclass, field
from typing import Final

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from control_plane.adapters.mqtt.messenger import MqttSettings
from control_plane.adapters.mqtt.prompt_client import PromptClient
from control_plane.adapters.mqtt.tls import context_for
from control_plane.services.errors import MessengerDown
from control_plane.services.ports.diagnosis import BrokerFacts
from schemas.broker_url import BrokerUrl
from schemas.codec import MAX_MESSAGE_SIZE
from schemas.topics import CONTROL_PLANE, Channel, Topics

_TIMEOUT: Final = 10.0
_SETTLE: Final = 2.0
"""Seconds to wait for the messages that the broker has stored, and for the own one to come back."""

_NO_DEVICE: Final = "backhaul-doctor"
_READ: Final = (Channel.RESPONSE, Channel.STATUS, Channel.PRESENCE, Channel.COMMAND)
_COMMAND: Final = Channel.COMMAND
_STORED: Final = {True: SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE, False: SubscribeOptions.RETAIN_DO_NOT_SEND}
_FAILURE: Final = 0x80
_LONGEST_ID: Final = "x" * 64


@dataclass(slots=True)
class _Seen:
    """What a connection showed."""

    refused: list[str] = field(default_factory=list)
    retained: set[str] = field(default_factory=set)
    returned: asyncio.Event = field(default_factory=asyncio.Event)


class MqttExaminer:
    """`services.ports.diagnosis.BrokerExaminer` of these settings."""

    def __init__(self, settings: MqttSettings, topics: Topics) -> None:
        self._settings = settings
        self._topics = topics
        self._broker = BrokerUrl.parse(settings.url)

    async def facts(self) -> BrokerFacts:
        client = self._client(self._settings.username, self._settings.password)
        refused_writes: list[str] = []
        seen = _Seen()
        try:
            async with client:
                seen.refused = await self._subscribed(client)
                reading = asyncio.create_task(self._read(client, seen))
                try:
                    refused_writes = await self._published(client)
                    await self._settled(seen, wait_for_own="command" not in (*refused_writes, *seen.refused))
                finally:
                    reading.cancel()
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            raise MessengerDown(client.ending or str(error)) from error
        terms, broker = client.terms, self._broker
        lost = not seen.returned.is_set() and not {"command"} & {*refused_writes, *seen.refused}
        return BrokerFacts(
            address=broker.url,
            max_message=min(MAX_MESSAGE_SIZE, terms.room(self._topics.command(_LONGEST_ID))),
            receive_maximum=terms.receive_maximum,
            maximum_qos=terms.maximum_qos,
            retains=terms.retain_available,
            encrypted=broker.secure,
            refused_reads=tuple(seen.refused),
            refused_writes=tuple(refused_writes),
            unseen_writes=("command",) if lost else (),
            retained_commands=tuple(sorted(seen.retained)),
            anonymous=await self._anonymous(),
        )

    async def clear(self, topics: tuple[str, ...]) -> None:
        client = self._client(self._settings.username, self._settings.password)
        try:
            async with client:
                for topic in topics:
                    await client.publish(topic, b"", qos=1, retain=True, timeout=_TIMEOUT)
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            raise MessengerDown(client.ending or str(error)) from error

    async def _subscribed(self, client: PromptClient) -> list[str]:
        """Subscribe to what a control plane reads; returns the channels that the broker refused."""
        granted = await client.subscribe(
            [
                (self._topics.every(channel), SubscribeOptions(qos=1, retainHandling=_STORED[channel is _COMMAND]))
                for channel in _READ
            ]
        )
        codes = [code if isinstance(code, int) else code.value for code in granted]
        return [str(channel) for channel, code in zip(_READ, codes, strict=False) if code >= _FAILURE]

    async def _published(self, client: PromptClient) -> list[str]:
        """Publish an empty command; returns the channels that the broker refused."""
        try:
            await client.publish(self._topics.command(_NO_DEVICE), b"", qos=1, timeout=_TIMEOUT)
        except aiomqtt.MqttError:
            return ["command"]
        return []

    async def _read(self, client: PromptClient, seen: _Seen) -> None:
        own = self._topics.command(_NO_DEVICE)
        suffix = own.rpartition("/")[2]
        async for message in client.messages:
            topic = message.topic.value
            if topic == own and not message.retain:
                seen.returned.set()
            elif message.retain and topic.endswith(f"/{suffix}"):
                seen.retained.add(topic)

    async def _settled(self, seen: _Seen, *, wait_for_own: bool) -> None:
        """Until the own message is back: the broker sends what it has stored before it."""
        if not wait_for_own:
            await asyncio.sleep(_SETTLE)
            return
        try:
            async with asyncio.timeout(_SETTLE):
                await seen.returned.wait()
        except TimeoutError:
            return

    async def _anonymous(self) -> bool | None:
        """Whether the broker takes a connection without credentials; None when it did not answer."""
        if self._settings.username is None:
            return True
        client = self._client(None, None)
        try:
            async with client:
                return True
        except (aiomqtt.MqttError, OSError):
            return False if (client.ending or "").startswith("the broker refused") else None

    def _client(self, username: str | None, password: str | None) -> PromptClient:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = 2 * MAX_MESSAGE_SIZE
        return PromptClient(
            self._broker.host,
            self._broker.port,
            username=username,
            password=password,
            identifier=f"{username or CONTROL_PLANE}-doctor-{secrets.token_hex(4)}",
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            properties=properties,
            tls_context=context_for(self._broker, self._settings.certificate, self._settings.key),
            transport="tcp" if self._broker.path is None else "websockets",
            websocket_path=self._broker.path,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            timeout=_TIMEOUT,
        )
