"""What a long answer needs of its connection, beyond ASGI: its end when the server stops, a cut, and cheap writes.

Rule: `api.server` gives it with each request, in the scope's `extensions`; an application without that server has none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

_EXTENSION: Final = "backhaul.connection"


@dataclass(slots=True)
class Connection:
    """`abort` closes the connection at once; `on_stop` is called when the server stops.

    `write` sends bytes of an answer as they are, past the server, and returns how many are not sent yet.
    """

    abort: Callable[[], None] | None = None
    write: Callable[[bytes], int] | None = None
    on_stop: Callable[[], None] | None = None

    def offered_in(self, scope: Scope) -> None:
        """Offer this connection to the application that gets `scope`."""
        scope.setdefault("extensions", {})[_EXTENSION] = self

    def stop(self) -> None:
        """The server stops."""
        if self.on_stop is not None:
            self.on_stop()


def connection_of(scope: Scope) -> Connection:
    """The connection of a request; one that does nothing where the server offers none."""
    found: Connection | None = scope.get("extensions", {}).get(_EXTENSION)
    return Connection() if found is None else found
