"""Builds `LocalStatus` from the objects of the loop, and remembers what the connection did.

Rule: used by the agent's loop only. Nothing is counted or kept for a question that may never come.
"""

import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from device_agent import VERSION
from device_agent.limits.limits import Limits
from device_agent.local.model import (
    BrokerState,
    ClockState,
    JournalState,
    LocalStatus,
    LocalUpload,
    Policy,
    SignedState,
)
from device_agent.local.requests import waiting
from device_agent.policy.rules import DevicePolicy
from device_agent.settings import Settings
from device_agent.system_info import EARLIEST
from device_agent.transfer.responses import progress_of
from device_agent.trust.mode import SIGNED, UNSIGNED
from device_agent.uploads import Run, Uploads
from schemas.file_names import spelled
from schemas.signing.canonical import fingerprint

if TYPE_CHECKING:
    from device_agent.trust.signing import DeviceSigning

MOST: Final = 100
"""Uploads in one document; the first ones in the order of `_turn`."""


class LocalReporter:
    """What a person on the device may know. `wall` is the device's clock, in seconds since 1970."""

    def __init__(
        self,
        settings: Settings,
        policy: DevicePolicy,
        wall: Callable[[], float],
        signing: "DeviceSigning | None" = None,
    ) -> None:
        self._policy = policy
        self._signing = signing
        self._settings = settings
        self._wall = wall
        self._started_at = wall()
        self._broker = BrokerState(url=settings.mqtt_url, connected=False, since=self._started_at)

    def connected(self) -> None:
        """The subscriptions are in place."""
        self._broker = BrokerState(url=self._broker.url, connected=True, since=self._wall())

    def disconnected(self) -> None:
        """The connection has ended; why follows in `retries`."""
        now = self._wall()
        self._broker = replace(self._broker, connected=False, since=now, last_contact_at=now)

    def retries(self, text: str, seconds: float) -> None:
        """The next connection is tried in so many seconds; `text` is why the last one ended or failed."""
        self._broker = replace(self._broker, last_error=text, next_try_at=self._wall() + seconds)

    def status(
        self,
        uploads: Uploads,
        *,
        now: float,
        journal_size: int,
        failing: str | None,
        disk_free: int | None,
        limits: Limits,
    ) -> LocalStatus:
        """The document of this moment; `now` is the loop's clock."""
        settings, wall = self._settings, self._wall()
        broker = replace(self._broker, last_contact_at=wall) if self._broker.connected else self._broker
        open_runs = sorted(uploads, key=_turn)
        return LocalStatus(
            version=VERSION,
            client_id=settings.client_id,
            pid=os.getpid(),
            started_at=self._started_at,
            broker=broker,
            clock=ClockState(now=wall, notes=_notes(wall)),
            journal=JournalState(
                folder=spelled(str(settings.state_dir)), size=journal_size, failing=failing, disk_free=disk_free
            ),
            policy=Policy(
                roots=tuple(spelled(root) for root in settings.allowed_roots),
                file=settings.default_file,
                types={name: tuple(globs) for name, globs in settings.types.items()},
                hosts=settings.upload_hosts,
                rules=tuple(self._policy.lines()),
                after=settings.allow_after,
            ),
            budget=limits.budget() if limits.enabled else None,
            conditions=limits.conditions,
            trust=UNSIGNED if self._signing is None else SIGNED,
            signed=None if self._signing is None else _signed(self._signing),
            uploads_open=len(open_runs),
            requests=tuple(itertools.islice(waiting(uploads), MOST)),
            uploads=tuple(_upload(run, now, failing) for run in open_runs[:MOST]),
        )


def _signed(signing: "DeviceSigning") -> SignedState:
    return SignedState(
        key=signing.signer.kid,
        fingerprint=fingerprint(signing.signer.verifier.public_key),
        root=signing.trust_file.trust.root.version,
        keys_version=signing.keys_version,
        unverified=signing.unverified,
    )


def _turn(run: Run) -> tuple[bool, tuple[int, int]]:
    """Uploads that only wait for the owner's close come last."""
    return run.ended, run.rank


def _upload(run: Run, now: float, failing: str | None) -> LocalUpload:
    entry = progress_of(run.transfer, now, sum(tuple(run.session.sent.values())))
    return LocalUpload(
        upload_id=entry.upload_id,
        path=entry.file_path,
        state=str(run.transfer.state),
        bytes_sent=entry.bytes_sent,
        size=run.transfer.known_size,
        reason=failing or run.unresponsive(now) or entry.reason,
    )


def _notes(wall: float) -> tuple[str, ...]:
    return ("the clock was never set: TLS and signed URLs fail until it is",) if wall < EARLIEST else ()
