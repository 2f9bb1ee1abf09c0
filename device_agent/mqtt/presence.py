"""Presence messages: births, beats, the will, and offline.

Rule: `(epoch, sequence)` rises with every message of one installation; the will and offline come last in their epoch.
So a late will never overrides a newer birth.
"""

import platform
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from device_agent import VERSION
from device_agent.state.installation import Installation
from schemas.codec import encode
from schemas.file_names import spelled
from schemas.messages import AgentInfo, Presence
from schemas.values import LAST_SEQUENCE, Action

BEAT_EVERY: Final = 30.0
BEAT_EXPIRY: Final = 120
CAPABILITIES: Final = tuple(action for action in Action if action is not Action.HELLO)


class PresenceBuilder:
    """Builds presence messages. `will` is called by the connection's thread, everything else by the agent's loop."""

    def __init__(
        self, client_id: str, installation: Installation, *, labels: Mapping[str, str], default_file: str | None
    ) -> None:
        self._installation = installation
        self._template = Presence(
            client_id=client_id,
            status="online",
            install_id=installation.install_id,
            epoch=0,
            sequence=0,
            agent=AgentInfo(
                VERSION, hostname=spelled(platform.node()), os=platform.system().lower(), arch=platform.machine()
            ),
            labels=dict(labels),
            capabilities=CAPABILITIES,
            default_file=default_file,
        )
        self._lock = threading.Lock()
        self._sequence = 0
        self._since = datetime.now(UTC)

    @property
    def epoch(self) -> int:
        """The epoch of the present connection."""
        return self._installation.epoch

    def will(self) -> bytes:
        """The will of the next connection, which starts a new epoch."""
        with self._lock:
            epoch = self._installation.next_epoch()
            self._sequence = 0
            self._since = datetime.now(UTC)
            return self._encoded("offline", epoch, LAST_SEQUENCE)

    def online(self) -> bytes:
        """The birth of the present connection, and then each beat."""
        with self._lock:
            sequence, self._sequence = self._sequence, self._sequence + 1
            return self._encoded("online", self._installation.epoch, sequence)

    def offline(self) -> bytes:
        """The last message before a graceful end."""
        with self._lock:
            return self._encoded("offline", self._installation.epoch, LAST_SEQUENCE)

    def _encoded(self, status: str, epoch: int, sequence: int) -> bytes:
        known = self._template
        return encode(
            Presence(
                client_id=known.client_id,
                status=status,
                install_id=known.install_id,
                epoch=epoch,
                sequence=sequence,
                since=self._since,
                agent=known.agent,
                labels=known.labels,
                capabilities=known.capabilities,
                default_file=known.default_file,
            )
        )
