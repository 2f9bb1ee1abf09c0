"""The words of one simulated device: its presence, and whatever else it publishes.

Rule: `(epoch, sequence)` rises with every presence; the will and the farewell come last in their epoch.
"""

from datetime import UTC, datetime
from typing import Final

import msgspec

from control_plane.cli.simulate.ground import Ground
from control_plane.cli.simulate.packets import Connect, Will, text
from control_plane.cli.simulate.wire import Wire
from schemas.codec import encode
from schemas.messages import AgentInfo, Presence, Response
from schemas.topics import Channel
from schemas.values import LAST_SEQUENCE, Action

VERSION: Final = "simulated"
BEAT_EXPIRY: Final = 120
SESSION_EXPIRY: Final = 600
WILL_DELAY: Final = 10
RECEIVE_MAXIMUM: Final = 16
_CAPABILITIES: Final = tuple(action for action in Action if action is not Action.HELLO)


class Voice:
    """Speaks over `wire`, and says nothing while there is none."""

    def __init__(self, client_id: str, ground: Ground) -> None:
        self.client_id = client_id
        self.wire: Wire | None = None
        self.epoch = ground.first_epoch
        self._ground = ground
        self._sequence = 0
        self._since = datetime.now(UTC)

    @property
    def install_id(self) -> str:
        """One for each name, so that a second run is the same device again."""
        return f"simulated-{self.client_id}"

    def next_connect(self) -> Connect:
        """The CONNECT of the next connection: a new epoch begins with it."""
        self.epoch += 1
        self._sequence = 0
        will = self._presence("offline", LAST_SEQUENCE)
        password = self._ground.password
        return Connect(
            client_id=self.client_id,
            username=None if password is None else self.client_id,
            password=password,
            session_expiry=SESSION_EXPIRY,
            receive_maximum=RECEIVE_MAXIMUM,
            will=Will(self._ground.topics.presence(self.client_id), will, WILL_DELAY),
        )

    def online(self) -> None:
        """A birth or a beat."""
        presence = self._presence("online", self._sequence)
        self._sequence += 1
        self.publish(Channel.PRESENCE, presence, retain=True, expiry=BEAT_EXPIRY)

    def farewell(self) -> None:
        """Offline, by its own will, and hang up."""
        if self.wire is not None:
            self.publish(Channel.PRESENCE, self._presence("offline", LAST_SEQUENCE), retain=True)
            self.wire.close()

    def respond(self, response: Response) -> None:
        """A response; a failure that it tells is counted."""
        if response.error:
            self._ground.tally.errors[f"said {response.error}: {response.message}"] += 1
        self.publish(Channel.RESPONSE, encode(msgspec.structs.replace(response, epoch=self.epoch)))

    def publish(self, channel: Channel, payload: bytes, *, qos: int = 1, retain: bool = False, expiry: int = 0) -> None:
        """Anything on one of the device's topics."""
        if self.wire is not None:
            topic = text(self._ground.topics.of(self.client_id, channel))
            self.wire.publish(topic, payload, qos=qos, retain=retain, expiry=expiry)

    def _presence(self, status: str, sequence: int) -> bytes:
        presence = Presence(
            client_id=self.client_id,
            status=status,
            install_id=self.install_id,
            epoch=self.epoch,
            sequence=sequence,
            since=self._since,
            agent=AgentInfo(VERSION, hostname=self.client_id, os="linux"),
            labels={"simulated": "true"},
            capabilities=_CAPABILITIES,
            default_file=self._ground.file.path,
        )
        return encode(presence)
