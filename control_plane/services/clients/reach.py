"""The reach of a caller: the clients that a token with the claim `clients` may see and touch.

Rule: what lies outside of it is answered as if it did not exist. A client that is not known, or was forgotten, lies
outside of every reach. A selector reads the effective labels, so those that a device reports count too.
"""

from collections.abc import Collection
from functools import lru_cache

from msgspec.structs import replace

from control_plane.domain.access import Principal
from control_plane.domain.clients import Client
from control_plane.domain.errors import Forbidden
from control_plane.domain.jobs.spec import JobSpec
from control_plane.domain.selectors import Selector, parse
from control_plane.services.errors import UnknownClient
from control_plane.services.ports.database import Records

_parsed = lru_cache(256)(parse)


def reach_of(principal: Principal) -> Selector | None:
    """The clients that a caller may see and touch; None: every client."""
    return None if principal.clients is None else _parsed(principal.clients)


def reaches(principal: Principal, client: Client | None) -> bool:
    """Whether a caller may see this client; None is one that is not known."""
    reach = reach_of(principal)
    return reach is None or (client is not None and reach.matches(client.effective_labels))


def require_reach(principal: Principal, client: Client | None, client_id: str) -> Client:
    """The client; `UnknownClient` when it is not known, or outside of the caller's reach."""
    if client is None or not reaches(principal, client):
        raise UnknownClient(client_id)
    return client


def require_kept(principal: Principal, client: Client) -> None:
    """`Forbidden` unless a client that the caller makes or changes is within its reach then."""
    if not reaches(principal, client):
        raise _not_own(principal, client.client_id)


def require_unused(records: Records, principal: Principal, client_ids: Collection[str]) -> None:
    """`Forbidden` for a client that is not known any more and left uploads: they may be those of another site."""
    if principal.clients is not None and (left := records.clients.left_rows(client_ids)):
        raise _not_own(principal, min(left))


def _not_own(principal: Principal, client_id: str) -> Forbidden:
    return Forbidden(f"client {client_id!r} is not, or would not be, one of the token's clients: {principal.clients}")


def reachable(records: Records, principal: Principal, client_id: str) -> bool:
    """Whether the caller may see the client of this id; true for every id, known or not, without a claim."""
    return principal.clients is None or reaches(principal, records.clients.get(client_id))


def within_reach(spec: JobSpec, principal: Principal) -> JobSpec:
    """The request with the caller's reach in its targets, where it stays: clients that join later are bound too."""
    return replace(spec, targets=replace(spec.targets, reach=principal.clients))


def same_reach(one: str | None, other: str | None) -> bool:
    """Whether two claims have the same requirements, in any order."""
    if one is None or other is None:
        return one == other
    return _parsed(one).same_as(_parsed(other))
