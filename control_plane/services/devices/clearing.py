"""Clears what a revoked device retained at the broker: at once, and again when its will has come.

Rule: nothing has to be remembered for it. Each presence of a revoked device that arrives, as a stored one does after a
connect, begins it anew: so a restart between the two clearings leaves nothing behind.
"""

import asyncio
from typing import Final

from control_plane.domain.devices import DeviceState
from control_plane.services.devices.pins import Pins
from control_plane.services.errors import MessengerDown, ServiceError
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.messenger import Messenger
from schemas.topics import Channel
from schemas.values import WILL_DELAY

CLEAR_AGAIN: Final = WILL_DELAY + 5.0
"""Seconds after which a retained presence is cleared again: the will of its device may have come meanwhile."""


class PresenceClearer:
    """Publishes the empty presence of revoked devices; one task a device at most."""

    def __init__(self, messenger: Messenger, pins: Pins, log: EventLog) -> None:
        self._messenger = messenger
        self._pins = pins
        self._log = log
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, client_id: str) -> None:
        """Clear now, and `CLEAR_AGAIN` seconds from now: the latest call counts."""
        running = self._tasks.pop(client_id, None)
        if running is not None:
            running.cancel()
        task = asyncio.create_task(self._clear_twice(client_id), name="clear-presence")
        self._tasks[client_id] = task
        task.add_done_callback(lambda done: self._tasks.get(client_id) is done and self._tasks.pop(client_id))

    def heard(self, client_id: str) -> None:
        """A presence of a revoked device arrived: clear it, unless that is going on."""
        if client_id not in self._tasks:
            self.begin(client_id)

    async def _clear_twice(self, client_id: str) -> None:
        for pause in (0.0, CLEAR_AGAIN):
            await asyncio.sleep(pause)
            pin = self._pins.of(client_id)
            if pin is None or pin.state is not DeviceState.REVOKED:
                # It was enrolled again meanwhile: what is retained now is its own.
                return
            try:
                await self._messenger.publish(Channel.PRESENCE, client_id, b"")
            except (MessengerDown, ServiceError) as error:
                # What stays is not believed: the pin refuses it.
                self._log("device.uncleared", {"client_id": client_id, "error": str(error)})
