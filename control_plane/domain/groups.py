"""A group: a named selection of clients that an operator keeps, used as `group:NAME`.

Rule: pure. A group holds what selects, not the clients selected: they are found each time it is used.
"""

from typing import Final

from msgspec import Struct

PREFIX: Final = "group:"
"""What stands before the name of a group among client ids and patterns: no client id holds a colon."""


class Group(Struct, frozen=True, kw_only=True):
    """The clients that one of the ids and patterns in `clients`, or `selector`, matches; None selects none.

    Instants are seconds since the epoch.
    """

    name: str
    clients: tuple[str, ...] = ()
    selector: str | None = None
    note: str = ""
    created_at: float
    updated_at: float
