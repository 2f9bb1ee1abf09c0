"""Asking the control plane for one upload from every simulated device, and waiting until each has ended.

Rule: an upload counts as ended when the control plane closed it on the device, not when somebody said it was sent.
"""

import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from control_plane.cli.simulate.fleet import Fleet
from control_plane.cli.simulate.requests import RequestFailed

_UNKNOWN: Final = 404
_TRIES: Final = 20
_PAUSE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Triggered:
    """How it went: `refused` triggers, uploads by outcome, and the seconds until the last one ended."""

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
class Server:
    """The control plane, and the bearer token that it wants."""

    url: str
    token: str | None = None


async def trigger_all(fleet: Fleet, server: Server, *, at_once: int, patience: float, rounds: int = 1) -> Triggered:
    """`rounds` uploads per device, `at_once` triggers in flight; waits at most `patience` seconds for their ends."""
    loop = asyncio.get_running_loop()
    before = fleet.tally.outcomes.copy()
    started = loop.time()
    names = [member.device.voice.client_id for member in fleet.members] * rounds
    shares = [names[number::at_once] for number in range(at_once)]
    taken = sum(await asyncio.gather(*(_trigger(fleet, server, share) for share in shares)))
    triggering = loop.time() - started
    rest = max(0.0, started + patience - loop.time())
    await fleet.tally.until(lambda: (fleet.tally.outcomes - before).total() >= taken, rest)
    outcomes = dict(fleet.tally.outcomes - before)
    return Triggered(taken, len(names) - taken, outcomes, loop.time() - started, triggering)


async def _trigger(fleet: Fleet, server: Server, names: Sequence[str]) -> int:
    """Trigger one after the other; returns how many were taken."""
    return sum([await _trigger_one(fleet, server, name) for name in names])


async def _trigger_one(fleet: Fleet, server: Server, name: str) -> bool:
    headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
    if server.token:
        headers["Authorization"] = f"Bearer {server.token}"
    url = f"{server.url}/trigger-download/{quote(name, safe='')}"
    said = ""
    for _ in range(_TRIES):
        try:
            answer = await fleet.requests.send("POST", url, headers, b"{}")
        except RequestFailed as error:
            said = str(error)
        else:
            if answer.fine:
                return True
            said = _title(answer.body) or str(answer.status)
            # A client is known a moment after its birth; what is busy says 429 or 503.
            if answer.status not in {_UNKNOWN, 429, 503}:
                break
        await asyncio.sleep(_PAUSE)
    fleet.tally.errors[f"trigger: {said}"] += 1
    return False


def _title(body: bytes) -> str:
    try:
        problem = json.loads(body)
    except ValueError:
        return ""
    return str(problem.get("title", "")) if isinstance(problem, dict) else ""
