"""The server under `backhaul serve`: it ends when the application behind it does.

Rule: uvicorn goes on answering when the lifespan of its application has ended by a fault; a control plane whose loops
have stopped must end instead, so that whoever supervises it starts another.
"""

import uvicorn
from uvicorn.lifespan.on import LifespanOn


class WatchedServer(uvicorn.Server):
    """A server that looks at its application's lifespan ten times a second."""

    @property
    def deserted(self) -> bool:
        """Whether the application ended without being asked to."""
        lifespan = getattr(self, "lifespan", None)
        return isinstance(lifespan, LifespanOn) and (lifespan.error_occurred or lifespan.shutdown_failed)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now."""
        return await super().on_tick(counter) or self.deserted
