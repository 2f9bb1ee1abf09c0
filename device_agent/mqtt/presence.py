"""Presence messages: births, beats, the will, and offline.

Rule: `(epoch, sequence)` rises with every message of one installation; the will and offline come last in their epoch.
So a late will never overrides a newer birth. What the broker has stored as the presence of this installation shows
whether the state folder went back to an older copy.
"""

import itertools
import logging
import platform
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from device_agent import VERSION
from device_agent.sealing.seal import can_seal
from device_agent.state.installation import Installation
from schemas.codec import decode, encode
from schemas.errors import SchemaError
from schemas.file_names import spelled
from schemas.messages import MAX_ROOTS, AgentInfo, Presence
from schemas.signing.canonical import Signature
from schemas.values import LAST_SEQUENCE, Action, DeviceBudget, Feature

if TYPE_CHECKING:
    from device_agent.trust.signing import DeviceSigning

BEAT_EVERY: Final = 30.0
CAPABILITIES: Final = (
    *(action for action in Action if action is not Action.HELLO),
    *(feature for feature in Feature if feature is not Feature.SEALED or can_seal()),
)
_MOST_ROOTS: Final = 16 * 1024
"""Bytes of the roots in a presence."""

_HIGHEST_EPOCH: Final = 2**52
"""Above this one too few epochs are left: such a presence is not this program's."""

log = logging.getLogger(__name__)


class PresenceBuilder:
    """Builds presence messages, and reads the one that the broker has stored. `budget` is called for each beat.

    With `signing` each has the key of the device and its session, and only a stored one that it has signed counts.
    `will` and `read_retained` are called by the connection's thread, everything else by the agent's loop.
    """

    def __init__(  # noqa: PLR0913 (one keyword for each field of the presence)
        self,
        client_id: str,
        installation: Installation,
        *,
        labels: Mapping[str, str],
        default_file: str | None,
        timezone: str | None = None,
        roots: Sequence[str] = (),
        types: Iterable[str] = (),
        policy: tuple[str, ...] = (),
        budget: Callable[[], DeviceBudget | None] = lambda: None,
        signing: "DeviceSigning | None" = None,
    ) -> None:
        self._installation = installation
        self._budget = budget
        self._signing = signing
        self._template = Presence(
            client_id=client_id,
            status="online",
            install_id="",
            epoch=0,
            sequence=0,
            agent=AgentInfo(
                VERSION,
                hostname=spelled(platform.node()),
                os=platform.system().lower(),
                arch=platform.machine(),
                policy=policy,
            ),
            labels=dict(labels),
            capabilities=CAPABILITIES,
            default_file=default_file,
            timezone=timezone,
            roots=_fitting(roots),
            types=tuple(sorted(types)),
        )
        self._lock = threading.Lock()
        self._sequence = 0
        self._since = datetime.now(UTC)
        self._went_back = False
        """Whether an epoch above this process's own was found."""

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
            if self._signing is not None:
                self._signing.sessions.draw()
            return self._encoded("offline", epoch, LAST_SEQUENCE)

    def online(self) -> bytes:
        """The birth of the present connection, and then each beat."""
        budget = self._budget()
        with self._lock:
            sequence, self._sequence = self._sequence, self._sequence + 1
            return self._encoded("online", self._installation.epoch, sequence, budget)

    def offline(self) -> bytes:
        """The last message before a graceful end."""
        with self._lock:
            return self._encoded("offline", self._installation.epoch, LAST_SEQUENCE)

    def read_retained(self, data: bytes, signature: Signature | None = None) -> bool:
        """Read the stored presence of this client, before the birth; True when the connection needs a new epoch.

        Every epoch is used once, so one of this installation that is not below the present one was used by another
        copy of the state folder. The first time the state may have gone back: the epochs continue above it. The second
        time another device uses that copy: this one becomes an installation of its own, and the owner sees two.
        """
        if self._signing is not None and not self._signing.is_own(data, signature):
            return False
        try:
            stored = decode(Presence, data)
        except SchemaError:
            # An empty one among them: the presence was cleared.
            return False
        if self._signing is not None and stored.session == self._signing.sessions.present:
            # This process has signed it: its own will, which a broker may hand over as what it has stored.
            return False
        installation = self._installation
        if stored.install_id != installation.install_id or not installation.epoch <= stored.epoch < _HIGHEST_EPOCH:
            return False
        again, self._went_back = self._went_back, True
        own = installation.epoch
        installation.rise_above(stored.epoch)
        if again:
            installation.renew()
            log.error(
                "another device uses CLIENT_ID %s with a copy of this state folder: give one of them another CLIENT_ID",
                self._template.client_id,
            )
        else:
            text = "the state folder is an older copy: epoch %d, and epoch %d was used; going on above it"
            log.warning(text, own, stored.epoch)
        return True

    def _encoded(self, status: str, epoch: int, sequence: int, budget: DeviceBudget | None = None) -> bytes:
        presence = replace(
            self._template,
            status=status,
            install_id=self._installation.install_id,
            epoch=epoch,
            sequence=sequence,
            since=self._since,
            budget=budget,
        )
        return encode(presence if self._signing is None else self._signing.identified(presence))


def _fitting(roots: Sequence[str]) -> tuple[str, ...]:
    """The first roots, as many as a presence has room for: they are shown to a person, and decide nothing."""
    lengths = itertools.accumulate(len(root.encode()) for root in roots[:MAX_ROOTS])
    return tuple(root for root, end in zip(roots, lengths, strict=False) if end <= _MOST_ROOTS)
