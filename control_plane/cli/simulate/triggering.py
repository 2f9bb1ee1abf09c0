"""Triggering one upload from every simulated device, and waiting until each has ended.

Rule: an upload counts as ended when the control plane has closed it on the device, not when its bytes were sent.
"""

import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from control_plane.cli.simulate.fleet import Fleet
from control_plane.cli.simulate.http_pool import RequestFailed

_UNKNOWN: Final = 404
_TRIES: Final = 20
_PAUSE: Final = 0.5


@dataclass(frozen=True, slots=True)
class TriggerReport:
    """The result: `refused` triggers, uploads by outcome, and the seconds until the last one ended."""

    triggered: int
    refused: int
    outcomes: dict[str, int]
    seconds: float
    triggering_seconds: float

    @property
    def uploads_per_minute(self) -> float:
        """Completed uploads."""
        return 60.0 * self.outcomes.get("completed", 0) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The control plane and its bearer token."""

    url: str
    token: str | None = None


async def trigger_all(
    fleet: Fleet, server: ServerAddress, *, at_once: int, patience: float, rounds: int = 1
) -> TriggerReport:
    """`rounds` uploads per device, `at_once` triggers in flight; waits at most `patience` seconds for their ends."""
    loop = asyncio.get_running_loop()
    before = fleet.counters.outcomes.copy()
    started = loop.time()
    names = [member.device.publisher.client_id for member in fleet.members] * rounds
    shares = [names[number::at_once] for number in range(at_once)]
    accepted = sum(await asyncio.gather(*(_trigger(fleet, server, share) for share in shares)))
    triggering = loop.time() - started
    rest = max(0.0, started + patience - loop.time())
    await fleet.counters.until(lambda: (fleet.counters.outcomes - before).total() >= accepted, rest)
    outcomes = dict(fleet.counters.outcomes - before)
    return TriggerReport(accepted, len(names) - accepted, outcomes, loop.time() - started, triggering)


async def _trigger(fleet: Fleet, server: ServerAddress, names: Sequence[str]) -> int:
    """Trigger one after the other; returns how many were accepted."""
    return sum([await _trigger_one(fleet, server, name) for name in names])


async def _trigger_one(fleet: Fleet, server: ServerAddress, name: str) -> bool:
    headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
    if server.token:
        headers["Authorization"] = f"Bearer {server.token}"
    url = f"{server.url}/trigger-download/{quote(name, safe='')}"
    problem = ""
    for _ in range(_TRIES):
        try:
            answer = await fleet.http.send("POST", url, headers, b"{}")
        except RequestFailed as error:
            problem = str(error)
        else:
            if answer.success:
                return True
            problem = _title(answer.body) or str(answer.status)
            # A client is known a moment after its birth; a busy control plane answers 429 or 503.
            if answer.status not in {_UNKNOWN, 429, 503}:
                break
        await asyncio.sleep(_PAUSE)
    fleet.counters.errors[f"trigger: {problem}"] += 1
    return False


def _title(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    return str(document.get("title", "")) if isinstance(document, dict) else ""
