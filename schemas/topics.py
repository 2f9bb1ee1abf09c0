"""Every MQTT topic of Backhaul: its writer, its reader, how it is built and parsed.

Rule: no other module builds a topic. `TOPICS` is the one table; the broker's access list, the subscriptions of
both sides and the AsyncAPI document are rendered from it.

>>> topics = Topics()
>>> topics.command("restaurant-1")
'fleet/v1/restaurant-1/command'
>>> topics.parse("fleet/v1/restaurant-1/command")
ParsedTopic(channel=<Channel.COMMAND: 'command'>, client_id='restaurant-1')
>>> topics.every(Channel.PRESENCE)
'fleet/v1/+/presence'
"""

import re
from enum import StrEnum
from typing import Final

from msgspec import Struct

from schemas.errors import SchemaError

DEFAULT_ROOT: Final = "fleet/v1"
"""The topic root is the major version of the protocol (setting `TOPIC_ROOT`)."""

CONTROL_PLANE: Final = "control-plane"
"""The pseudo client under which the control plane announces its own birth."""

CLIENT_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
RESERVED_PREFIXES: Final = ("control-plane", "cli-", "operator-")

_CLIENT_ID: Final = re.compile(CLIENT_ID_PATTERN)
_ROOT: Final = re.compile(r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$")


class Channel(StrEnum):
    """The last level of a topic: the kind of message published there."""

    COMMAND = "command"
    RESPONSE = "response"
    STATUS = "status"
    PRESENCE = "presence"
    BIRTH = "birth"
    KEYS = "keys"


class Party(StrEnum):
    """The two kinds of clients at the ends of a topic."""

    DEVICE = "device"
    SERVICE = "service"


class Topic(Struct, frozen=True):
    """One row of the topic table (protocol.md section 1)."""

    channel: Channel
    writer: Party
    reader: Party
    qos: int
    retained: bool
    per_client: bool
    message: str


TOPICS: Final[tuple[Topic, ...]] = (
    Topic(Channel.COMMAND, Party.SERVICE, Party.DEVICE, 1, retained=False, per_client=True, message="Command"),
    Topic(Channel.RESPONSE, Party.DEVICE, Party.SERVICE, 1, retained=False, per_client=True, message="Response"),
    Topic(Channel.STATUS, Party.DEVICE, Party.SERVICE, 0, retained=False, per_client=True, message="Status"),
    Topic(Channel.PRESENCE, Party.DEVICE, Party.SERVICE, 1, retained=True, per_client=True, message="Presence"),
    Topic(Channel.BIRTH, Party.SERVICE, Party.DEVICE, 1, retained=False, per_client=False, message="Birth"),
    Topic(Channel.KEYS, Party.SERVICE, Party.DEVICE, 1, retained=True, per_client=False, message="TrustDocument"),
)

_CHANNELS: Final = frozenset(Channel)
FLEET_CHANNELS: Final = frozenset(topic.channel for topic in TOPICS if not topic.per_client)
"""The channels of the control plane to all agents: one topic each."""

QOS: Final = {topic.channel: topic.qos for topic in TOPICS}
RETAINED: Final = {topic.channel: topic.retained for topic in TOPICS}


class ParsedTopic(Struct, frozen=True):
    """A topic taken apart; `client_id` is the device's, or `control-plane` on the topics to all agents."""

    channel: Channel
    client_id: str


def valid_client_id(text: str) -> bool:
    """Whether `text` may name a device on the wire, in REST and in topics.

    >>> valid_client_id("restaurant-1"), valid_client_id("cli-7"), valid_client_id("a/b")
    (True, False, False)
    """
    return _CLIENT_ID.fullmatch(text) is not None and not text.startswith(RESERVED_PREFIXES)


def require_client_id(text: str) -> str:
    """Return `text` when it is a client id for a device; raise `SchemaError` with the allowed form."""
    if not valid_client_id(text):
        message = (
            f"client id {text!r} is not allowed: use 1 to 64 of A-Z a-z 0-9 . _ - beginning with a letter or "
            f"digit, and not with {', '.join(RESERVED_PREFIXES)}"
        )
        raise SchemaError(message)
    return text


class Topics(Struct, frozen=True):
    """Builds and parses topics below one root.

    `SchemaError` when the root holds a wildcard, an empty level or a character outside `A-Za-z0-9._-`.
    """

    root: str = DEFAULT_ROOT

    def __post_init__(self) -> None:
        if _ROOT.fullmatch(self.root) is None:
            message = f"topic root {self.root!r} is not allowed: use levels of A-Z a-z 0-9 . _ - joined by /"
            raise SchemaError(message)

    def command(self, client_id: str) -> str:
        """Topic of the commands to one agent."""
        return self.of(client_id, Channel.COMMAND)

    def response(self, client_id: str) -> str:
        """Topic of the responses of one agent."""
        return self.of(client_id, Channel.RESPONSE)

    def status(self, client_id: str) -> str:
        """Topic of the progress of one agent, while it has uploads."""
        return self.of(client_id, Channel.STATUS)

    def presence(self, client_id: str) -> str:
        """Topic of `online` and `offline` of one agent, and of its will."""
        return self.of(client_id, Channel.PRESENCE)

    def birth(self) -> str:
        """Topic on which a control plane requests a hello of every agent."""
        return self.every(Channel.BIRTH)

    def keys(self) -> str:
        """Topic of the roots of trust, and of the list of keys that agents obey."""
        return self.every(Channel.KEYS)

    def every(self, channel: Channel) -> str:
        """The subscription filter for one channel of the whole fleet."""
        return f"{self.root}/{CONTROL_PLANE if channel in FLEET_CHANNELS else '+'}/{channel}"

    def parse(self, topic: str) -> ParsedTopic:
        """Take a topic apart; `SchemaError` for a topic outside this table."""
        prefix, _, rest = topic.partition(self.root + "/")
        client_id, _, channel = rest.partition("/")
        if prefix or channel not in _CHANNELS:
            message = f"topic {topic!r} is not one of {self.root}/+/{{{','.join(Channel)}}}"
            raise SchemaError(message)
        if (client_id == CONTROL_PLANE) != (channel in FLEET_CHANNELS):
            message = f"topic {topic!r} mixes a device's channel with the control plane's"
            raise SchemaError(message)
        if channel not in FLEET_CHANNELS:
            require_client_id(client_id)
        return ParsedTopic(Channel(channel), client_id)

    def of(self, client_id: str, channel: Channel) -> str:
        """The topic of one client on one channel; `SchemaError` for what only a control plane publishes."""
        if channel in FLEET_CHANNELS:
            message = f"{channel} is not a channel of a device: only {CONTROL_PLANE} publishes there"
            raise SchemaError(message)
        return f"{self.root}/{require_client_id(client_id)}/{channel}"
