"""From what a request names (ids, patterns, groups, a selector) to the clients that it means.

Rule: inside one transaction of the caller, so what acts on a set sees the set that was checked. Every use that takes
clients from a caller resolves them here.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from control_plane.domain.groups import PREFIX
from control_plane.domain.selectors import Selector, both, ids_matching, parse
from control_plane.services.errors import BadInput, UnknownClient
from control_plane.services.ports.database import Records
from schemas.topics import valid_client_id

MAX_PATTERNS: Final = 100
"""Patterns of one request, those of its groups among them: each is a scan of the ids that begin as it does."""

_PATTERN: Final = re.compile(r"[A-Za-z0-9._*-]{1,64}")
_MAX_NAMED: Final = 10


@dataclass(frozen=True, slots=True)
class Resolved:
    """The clients that were meant, sorted; and what the caller may not have meant, a sentence each."""

    client_ids: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Named:
    """What a request names, its groups taken apart. `groups` has the ids that each group names."""

    ids: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    selectors: list[Selector] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)


def resolve(records: Records, clients: Sequence[str], selector: str | None, reach: str | None = None) -> Resolved:
    """The clients that `clients` (ids, patterns with `*`, `group:NAME`) and `selector` mean together: the union.

    A client is meant if it was seen or is expected. `UnknownClient` with every id that is neither; `BadInput` for an
    entry that is no id, no pattern and no known group; `SelectorError`. Neither means no client. With `reach`, a
    selector, all others are as if they were not known; and so is each group, since its list is that of the whole fleet.
    """
    named = _named(records, clients, selector, bound=reach is not None)
    grouped = {client_id for ids in named.groups.values() for client_id in ids}
    found = records.clients.matching([*named.ids, *grouped, *named.patterns], None)
    if reach is not None:
        found = [*records.clients.selected(found, parse(reach))]
    known = frozenset(found)
    unknown = sorted({client_id for client_id in named.ids if client_id not in known})
    if unknown:
        raise UnknownClient(*unknown)
    warnings = [
        f"pattern {pattern!r} matches no client" for pattern in named.patterns if not ids_matching([pattern], found)
    ]
    for name, ids in named.groups.items():
        if gone := sorted({client_id for client_id in ids if client_id not in known}):
            more = f" and {len(gone) - _MAX_NAMED} more" if len(gone) > _MAX_NAMED else ""
            warnings.append(f"group {name!r} names clients that are not known: {', '.join(gone[:_MAX_NAMED])}{more}")
    every = set(found)
    for one in named.selectors:
        selected = records.clients.matching((), one if reach is None else both(one, parse(reach)))
        every.update(selected)
        if not selected:
            warnings.append(f"selector {one.text!r} matches no client")
    return Resolved(tuple(sorted(every)), tuple(warnings))


def resolves(
    records: Records, clients: Sequence[str], selector: str | None, client_id: str, reach: str | None = None
) -> bool:
    """Whether `resolve` would give this client; an id that is not known any more is no error here."""
    client = records.clients.get(client_id)
    if client is None or (reach is not None and not parse(reach).matches(client.effective_labels)):
        return False
    named = _named(records, clients, selector, bound=reach is not None)
    if client_id in named.ids or any(client_id in ids for ids in named.groups.values()):
        return True
    if ids_matching(named.patterns, [client_id]):
        return True
    labels = client.effective_labels
    return any(one.matches(labels) for one in named.selectors)


def set_hash(client_ids: Iterable[str]) -> str:
    """A name for a set of clients: the same for the same clients, in any order (16 hexadecimal digits)."""
    return hashlib.sha256("\n".join(sorted(client_ids)).encode()).hexdigest()[:16]


def check_entries(clients: Sequence[str], selector: str | None) -> None:
    """`BadInput` or `SelectorError` unless these are ids, patterns and a selector. A group may not hold a group."""
    for entry in clients:
        _check(entry)
    if selector is not None:
        parse(selector)


def _named(records: Records, clients: Sequence[str], selector: str | None, *, bound: bool = False) -> _Named:
    named = _Named()
    for entry in clients:
        if entry.startswith(PREFIX):
            _add_group(records, named, entry.removeprefix(PREFIX), bound=bound)
        elif _check(entry):
            named.patterns.append(entry)
        else:
            named.ids.append(entry)
    if selector is not None:
        named.selectors.append(parse(selector))
    named.patterns = list(dict.fromkeys(named.patterns))
    if len(named.patterns) > MAX_PATTERNS:
        message = f"there are {len(named.patterns)} patterns, at most {MAX_PATTERNS} are allowed: use a selector"
        raise BadInput(message)
    return named


def _add_group(records: Records, named: _Named, name: str, *, bound: bool) -> None:
    group = None if bound else records.groups.get(name)
    if group is None:
        message = f"there is no group {name!r}"
        raise BadInput(message)
    named.groups[name] = [entry for entry in group.clients if "*" not in entry]
    named.patterns += [entry for entry in group.clients if "*" in entry]
    if group.selector is not None:
        named.selectors.append(parse(group.selector))


def _check(entry: str) -> bool:
    """Whether an entry is a pattern; False for a client id; `BadInput` when it is neither."""
    if "*" in entry and _PATTERN.fullmatch(entry):
        return True
    if not valid_client_id(entry):
        message = f"{entry!r} is no client id and no pattern: a pattern holds A-Z a-z 0-9 . _ - and *"
        raise BadInput(message)
    return False
