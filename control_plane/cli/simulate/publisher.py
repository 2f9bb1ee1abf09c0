"""Everything that one simulated device publishes: its presence, responses and statuses.

Rule: `(epoch, sequence)` rises with every presence; the will and the last presence have the last sequence.
"""

from datetime import UTC, datetime
from typing import Final

import msgspec

from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.environment import Environment
from control_plane.cli.simulate.identity import NO_ACCOUNT, Account
from control_plane.cli.simulate.packets import Connect, UserProperties, Will, text
from schemas.codec import encode
from schemas.messages import AgentInfo, Presence, Response
from schemas.topics import Channel
from schemas.values import LAST_SEQUENCE, WILL_DELAY, Action, DeviceBudget, Feature

VERSION: Final = "simulated"
PRESENCE_EXPIRY: Final = 120
SESSION_EXPIRY: Final = 600
RECEIVE_MAXIMUM: Final = 16
_CAPABILITIES: Final = (*(action for action in Action if action is not Action.HELLO), Feature.WAIT)


class Publisher:
    """Publishes over `connection`, and nothing while there is none."""

    def __init__(self, client_id: str, environment: Environment, account: Account = NO_ACCOUNT) -> None:
        self.client_id = client_id
        self.connection: MqttConnection | None = None
        self.epoch = environment.first_epoch
        self.budget: DeviceBudget | None = None
        """What the device reports of its own caps."""
        self._environment = environment
        self.enroll(account)
        self._sequence = 0
        self._since = datetime.now(UTC)

    def enroll(self, account: Account) -> None:
        """Take what the device has for itself, from its next connection on."""
        self.identity = account.identity
        self._password = self._environment.password if account.password is None else account.password

    @property
    def install_id(self) -> str:
        """One for each name, so that a second run is the same device again."""
        return f"simulated-{self.client_id}"

    def next_connect(self) -> Connect:
        """The CONNECT of the next connection, which starts a new epoch."""
        self.epoch += 1
        self._sequence = 0
        if self.identity is not None:
            self.identity.begin_session()
        will = self._presence("offline", LAST_SEQUENCE)
        topic = self._environment.topics.presence(self.client_id)
        return Connect(
            client_id=self.client_id,
            username=None if self._password is None else self.client_id,
            password=self._password,
            session_expiry=SESSION_EXPIRY,
            receive_maximum=RECEIVE_MAXIMUM,
            will=Will(topic, will, WILL_DELAY, self._signature(Channel.PRESENCE, topic, will)),
        )

    def online(self) -> None:
        """Publish that the device is online."""
        presence = self._presence("online", self._sequence)
        self._sequence += 1
        self.publish(Channel.PRESENCE, presence, retain=True, expiry=PRESENCE_EXPIRY)

    def go_offline(self) -> None:
        """Publish that the device is offline, and disconnect."""
        if self.connection is not None:
            self.publish(Channel.PRESENCE, self._presence("offline", LAST_SEQUENCE), retain=True)
            self.connection.close()

    def respond(self, response: Response) -> None:
        """Publish a response; one with an error is counted."""
        if response.error:
            self._environment.counters.errors[f"said {response.error}: {response.message}"] += 1
        self.publish(Channel.RESPONSE, encode(msgspec.structs.replace(response, epoch=self.epoch)))

    def publish(self, channel: Channel, payload: bytes, *, qos: int = 1, retain: bool = False, expiry: int = 0) -> None:
        """Publish on one of the device's topics."""
        if self.connection is not None:
            topic = self._environment.topics.of(self.client_id, channel)
            properties = self._signature(channel, topic, payload)
            self.connection.publish(text(topic), payload, qos=qos, retain=retain, expiry=expiry, properties=properties)

    def _signature(self, channel: Channel, topic: str, payload: bytes) -> UserProperties:
        return () if self.identity is None else self.identity.sign(channel, topic, payload)

    def _presence(self, status: str, sequence: int) -> bytes:
        presence = Presence(
            client_id=self.client_id,
            status=status,
            install_id=self.install_id,
            epoch=self.epoch,
            sequence=sequence,
            since=self._since,
            agent=AgentInfo(VERSION, hostname=self.client_id, os="linux"),
            labels={"simulated": "true", **self._environment.labels},
            capabilities=_CAPABILITIES,
            roots=self._environment.roots,
            default_file=self._environment.default_file.path,
            budget=self.budget,
        )
        if self.identity is not None:
            presence = msgspec.structs.replace(presence, **self.identity.facts())
        return encode(presence)
