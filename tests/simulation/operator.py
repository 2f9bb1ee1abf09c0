"""The operator of a history: triggers uploads until they are accepted, and cancels one now and then.

Rule: every accepted upload must exist (P1) and end (P6).
"""

import asyncio
from typing import TYPE_CHECKING

from control_plane.domain.access import Principal
from control_plane.domain.errors import IllegalTransition
from control_plane.domain.uploads.model import UploadKey
from control_plane.services.errors import ServiceError
from control_plane.services.uploads.service import TriggerRequest
from schemas.values import UploadOptions
from tests.simulation.promises import require

OPERATOR = Principal("operator")

if TYPE_CHECKING:
    from tests.simulation.history import History


class Operator:
    """`accepted` are the uploads whose trigger succeeded; `waiting` counts triggers that did not yet."""

    def __init__(self, history: "History") -> None:
        self._history = history
        self._world = history.world
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted: list[UploadKey] = []
        self.waiting = 0

    def plan(self, number: int, client_id: str, path: str, at: float) -> None:
        """Trigger this file at `at` (s), and again until a control plane accepts it."""
        self.waiting += 1
        task = asyncio.get_running_loop().create_task(self._trigger(number, client_id, path, at))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _trigger(self, number: int, client_id: str, path: str, at: float) -> None:
        await asyncio.sleep(at)
        chance, world = self._world.chance, self._world
        prefix = path in self._history.logs
        options = UploadOptions(on_change="prefix" if prefix else "fail", priority=chance.randint(0, 2))
        lasts = world.between(20.0, 900.0) if "deadline" in world.faults and chance.random() < 0.5 else None
        while True:
            engine = chance.choice(self._history.planes).engine
            if engine is not None:
                deadline = None if lasts is None else engine.clock.now() + lasts
                request = TriggerRequest(
                    client_id, path, options=options, deadline=deadline, idempotency_key=f"key-{number}"
                )
                try:
                    view = await asyncio.wait_for(engine.upload_service.trigger(OPERATOR, request), 30.0)
                except (ServiceError, TimeoutError) as error:
                    world.note("operator", f"trigger {number}: {error!r}")
                else:
                    self.accepted.append(view.upload.key)
                    world.note("operator", f"{view.upload.upload_id} of {path} on {client_id} was accepted")
                    break
            await asyncio.sleep(3.0)
        self.waiting -= 1

    def cancel_one(self) -> None:
        """Cancel one accepted upload, if the drawn control plane runs."""
        engine = self._world.chance.choice(self._history.planes).engine
        if engine is not None and self.accepted:
            key = self._world.chance.choice(self.accepted)
            task = asyncio.get_running_loop().create_task(
                self._cancel(engine.upload_service.cancel(OPERATOR, key.upload_id))
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _cancel(call: object) -> None:
        try:
            await asyncio.wait_for(call, 30.0)  # type: ignore[arg-type]
        except (ServiceError, IllegalTransition, TimeoutError):
            return

    def stop(self) -> None:
        """Cancel what is under way."""
        for task in self._tasks:
            task.cancel()

    def check(self) -> None:
        """P1: every accepted upload exists."""
        uploads = self._history.database.memory._tables.uploads
        for key in self.accepted:
            require(key in uploads, f"P1: {key.upload_id} was accepted and does not exist")
