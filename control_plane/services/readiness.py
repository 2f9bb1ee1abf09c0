"""Whether work can be done now: the broker, the database and the object store, each checked.

Rule: a neighbour that is away is part of the answer, never an error. A step of the clock is reported, and prevents no
work.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from control_plane.domain.access import Principal
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.ports.database import Database
from control_plane.services.ports.messenger import Messenger
from control_plane.services.ports.object_store import ObjectStore, ObjectStoreCapabilities
from control_plane.services.steady_clock import SteadyClock


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether work can be done: `checks` has for each neighbour, and the clock, `ok` or what is wrong.

    `keys` is there while the broker refuses the list of keys.
    `probe` is the result of the last good probe.
    """

    ready: bool
    checks: Mapping[str, str]
    probe: ObjectStoreCapabilities | None


class ReadinessCheck:
    """Checks every neighbour. `base_path` is the prefix below which this control plane may read."""

    def __init__(
        self,
        *,
        database: Database,
        object_store: ObjectStore,
        messenger: Messenger,
        probe: ObjectStoreProbe,
        clock: SteadyClock,
        base_path: str,
    ) -> None:
        self.keys_problem: Callable[[], str | None] = lambda: None
        """Why devices do not get the list of keys; nothing else waits for it, so it prevents no work."""
        self._database = database
        self._object_store = object_store
        self._messenger = messenger
        self._probe = probe
        self._steady_clock = clock
        self._missing_key = f"{base_path}/.backhaul-ready"

    async def readiness(self, _principal: Principal) -> Readiness:
        """The state of every neighbour now; never raises for one that is away."""
        broker = self._messenger.problem or "ok"
        database = await _checked(self._database.check())
        object_store = await _checked(self._object_store.head(self._missing_key))
        # The probe does more than this HEAD, so its reason is the better one.
        object_store = self._probe.failure or object_store
        checks = {"broker": broker, "database": database, "object_store": object_store}
        ready = all(state == "ok" for state in checks.values())
        more = {"clock": self._steady_clock.warning or "ok"}
        if (problem := self.keys_problem()) is not None:
            more["keys"] = problem
        return Readiness(ready, {**checks, **more}, self._probe.seen)


async def _checked(call: Awaitable[object]) -> str:
    try:
        await call
    except Exception as error:  # noqa: BLE001 - the answer names every failure, a fault of the program among them
        return str(error) or type(error).__name__
    return "ok"
