"""Acts on all clients that match: what is shown first is what is acted on.

Rule: the filter is sent with the count and the set that the list showed; the control plane refuses it once the set is
another one.
"""

from typing import Any

from control_plane.cli.errors import Misused
from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.session import CliSession


def chosen_clients(
    session: CliSession,
    plane: ControlPlane,
    what: str,
    pattern: str | None,
    selector: str | None,
    state: str | None,
) -> dict[str, Any]:
    """The clients of the filter, after a question with their number; `Misused` without a filter, or without clients."""
    given = {"id": pattern, "selector": selector, "state": None if state is None else str(state)}
    where: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not where:
        text = "name the clients: --selector, --id or --state"
        raise Misused(text)
    shown = plane.call("GET", "/clients", params={**where, "limit": 1})
    count = int(shown["count"])
    if not count:
        text = "no client matches"
        raise Misused(text)
    session.output.confirm(f"{what} {count} client{'' if count == 1 else 's'}?")
    return {**where, "count": count, "set": shown["set"]}
