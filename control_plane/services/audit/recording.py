"""One call that records what a caller did, in the transaction in which it is done.

Rule: a use case calls it last before its commit, so the record is stored with the act, or neither is.
"""

from collections.abc import Iterable, Mapping

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act, AuditEntry, Outcome, clients_of
from control_plane.services.ports.database import Records

Detail = Mapping[str, str | int | bool]


def record(
    records: Records,
    principal: Principal,
    act: Act,
    at: float,
    *,
    target: str = "",
    clients: Iterable[str] = (),
    detail: Detail | None = None,
    outcome: Outcome = Outcome.DONE,
) -> None:
    """Append one record of this caller's act at `at` (s); `target` is `kind:id`."""
    named, count, all_of_them = clients_of(clients)
    entry = AuditEntry(
        at=at,
        act=act,
        subject=principal.subject,
        token_id=principal.token_id,
        address=principal.address,
        reason=principal.reason,
        target=target,
        clients=named,
        client_count=count,
        client_set=all_of_them,
        detail=detail or {},
        outcome=outcome,
    )
    records.audit.add(entry)
