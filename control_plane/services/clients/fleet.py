"""The use cases of the fleet as a whole: expect clients, label them, keep groups of them.

Rule: every method takes the calling `Principal` first. What an operator writes stands beside what the device reports,
and neither overwrites the other.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from msgspec.structs import replace

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act
from control_plane.domain.clients import Client
from control_plane.domain.groups import PREFIX, Group
from control_plane.domain.selectors import selectable
from control_plane.services.audit.recording import Detail, record
from control_plane.services.clients.choosing import ClientChoice, ClientChooser
from control_plane.services.clients.reach import reach_of, require_kept, require_reach, require_unused
from control_plane.services.clients.service import check_client_id
from control_plane.services.clients.targeting import Resolved, check_entries, resolve
from control_plane.services.errors import BadInput, KeyTaken, UnknownGroup
from control_plane.services.jobs.runner import JobRunner
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records

T = TypeVar("T")

MAX_EXPECTED: Final = 20_000
"""Clients of one request."""

MAX_LABELS: Final = 64
MAX_LABEL: Final = 256
"""Labels that an operator sets on a client, and characters of a name or a value: as of a device's labels."""

MAX_NOTE: Final = 1_000
MAX_GROUPS: Final = 1_000
MAX_ENTRIES: Final = 1_000
"""Ids and patterns of one group: a larger set is a label."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class ExpectedClient:
    """A client that an operator names as one of the fleet. None leaves labels or note of a known one as they are."""

    client_id: str
    labels: Mapping[str, str] | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Enlisted:
    """The clients of one request as they are now, and how many of them were not known before, or were changed."""

    clients: tuple[Client, ...]
    created: int
    changed: int


class FleetService:
    """What a caller may do with the fleet."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        chooser: ClientChooser,
        jobs: JobRunner | None = None,
    ) -> None:
        self._chooser = chooser
        self._jobs = jobs
        self._database = database
        self._clock = clock
        self._beats = chooser.beats

    # --- clients ------------------------------------------------------------------------------------------------------

    async def expect(self, principal: Principal, entries: Sequence[ExpectedClient]) -> Enlisted:
        """Name clients as part of the fleet, whether they were seen or not: all of them, or none and `BadInput`.

        A repeat changes nothing. `Forbidden` for a client that is outside of the caller's reach before or after it, and
        for a caller with a reach for one that was forgotten: nothing shows any more in which reach it was.
        """
        _check_expected(entries)

        def work(records: Records) -> Enlisted:
            known = records.clients.among([one.client_id for one in entries])
            require_unused(records, principal, [one.client_id for one in entries if one.client_id not in known])
            clients: list[Client] = []
            changed: list[Client] = []
            for entry in entries:
                before = known.get(entry.client_id)
                after = _as_expected(before or Client(client_id=entry.client_id), entry)
                require_kept(principal, before or after)
                require_kept(principal, after)
                clients.append(after)
                if after != before:
                    changed.append(after)
            records.clients.save(changed)
            if changed:
                named = [one.client_id for one in changed]
                record(records, principal, Act.CLIENT_EXPECT, self._clock.now(), clients=named)
            created = len(entries) - len(known)
            return Enlisted(tuple(map(self._beats.latest, clients)), created, len(changed) - created)

        found = await self._database.write(work)
        self._announce([client.client_id for client in found.clients])
        return found

    async def set_labels(self, principal: Principal, client_id: str, labels: Mapping[str, str]) -> Client:
        """Replace the labels that operators set on a client; the device's stay. `UnknownClient`, `BadInput`."""
        return await self.change_labels(principal, client_id, labels, replace_all=True)

    async def change_labels(
        self, principal: Principal, client_id: str, changes: Mapping[str, str | None], *, replace_all: bool = False
    ) -> Client:
        """Set some of the labels that operators set on a client, and take off those that are None.

        A label that is taken off shows the device's value again; to take off one that is not there changes nothing.
        With `replace_all` the others are taken off too. `UnknownClient`, `BadInput`; `Forbidden` when the client would
        leave the caller's reach.
        """

        def work(records: Records) -> Client:
            before = require_reach(principal, records.clients.get(client_id), client_id)
            wanted = {**({} if replace_all else before.set_labels), **changes}
            labels = {name: value for name, value in wanted.items() if value is not None}
            _check_labels(labels, client_id)
            after = replace(before, set_labels=labels)
            require_kept(principal, after)
            if after != before:
                records.clients.save([after])
                target, facts = f"client:{client_id}", {"set_labels": _spelt(labels)}
                at = self._clock.now()
                record(records, principal, Act.CLIENT_LABEL, at, target=target, clients=[client_id], detail=facts)
            return after

        client = self._beats.latest(await self._database.write(work))
        self._announce([client_id])
        return client

    async def label_many(
        self, principal: Principal, choice: ClientChoice, changes: Mapping[str, str | None]
    ) -> tuple[int, int]:
        """Change labels of many clients as `change_labels` does, all or none: how many are meant, and were changed.

        `SetChanged`, `UnknownClient`, `BadInput`, `SelectorError`; `Forbidden` as `change_labels`.
        """
        now = self._clock.now()

        def work(records: Records) -> tuple[Sequence[str], list[Client]]:
            chosen = self._chooser.chosen(records, choice, now, reach_of(principal))
            changed: list[Client] = []
            for before in records.clients.among(chosen).values():
                wanted = {**before.set_labels, **changes}
                labels = {name: value for name, value in wanted.items() if value is not None}
                _check_labels(labels, before.client_id)
                if labels != before.set_labels:
                    after = replace(before, set_labels=labels)
                    require_kept(principal, after)
                    changed.append(after)
            records.clients.save(changed)
            if changed:
                named = [one.client_id for one in changed]
                facts = {"changes": _spelt(changes)}
                record(records, principal, Act.CLIENT_LABEL_MANY, now, clients=named, detail=facts)
            return chosen, changed

        chosen, changed = await self._database.write(work)
        self._announce([client.client_id for client in changed])
        return len(chosen), len(changed)

    def _announce(self, client_ids: Sequence[str]) -> None:
        """The clients may belong to other continuous jobs than before."""
        if self._jobs is not None:
            self._jobs.on_clients(client_ids)

    # --- groups -------------------------------------------------------------------------------------------------------

    async def groups(self, _principal: Principal) -> list[Group]:
        """Every group, by name."""
        return await self._database.read(lambda records: records.groups.list())

    async def group(self, _principal: Principal, name: str) -> tuple[Group, Resolved]:
        """A group, and the clients that it selects now; `UnknownGroup`."""
        _require_name(name)
        return await self._database.read(lambda records: _selected(records, name))

    async def create_group(self, principal: Principal, group: Group) -> tuple[Group, Resolved]:
        """A new group; the same again changes nothing. `KeyTaken` by another one, and as `put_group`."""

        def work(records: Records) -> tuple[Group, Resolved]:
            before = records.groups.get(group.name)
            if before is not None and _content(before) != _content(group):
                message = f"there is another group {group.name!r}: replace it with PUT"
                raise KeyTaken(message)
            return self._saved(records, principal, group, before)

        return await self._write_group(group, work)

    async def put_group(self, principal: Principal, group: Group) -> tuple[Group, Resolved, bool]:
        """Create or replace a group; whether it is new. `UnknownClient`, `SelectorError`, `BadInput`."""

        def work(records: Records) -> tuple[Group, Resolved, bool]:
            before = records.groups.get(group.name)
            return *self._saved(records, principal, group, before), before is None

        return await self._write_group(group, work)

    async def delete_group(self, principal: Principal, name: str) -> None:
        """Delete a group, not its clients; `UnknownGroup`. A request that names it is refused from now on."""
        _require_name(name)
        now = self._clock.now()

        def work(records: Records) -> None:
            if not records.groups.delete(name):
                raise UnknownGroup(name)
            record(records, principal, Act.GROUP_DELETE, now, target=f"group:{name}")

        await self._database.write(work)

    async def _write_group(self, group: Group, work: Callable[[Records], T]) -> T:
        _check_group(group)
        return await self._database.write(work)

    def _saved(
        self, records: Records, principal: Principal, group: Group, before: Group | None
    ) -> tuple[Group, Resolved]:
        if before is None and len(records.groups.list()) >= MAX_GROUPS:
            message = f"there are {MAX_GROUPS} groups already: delete one first"
            raise BadInput(message)
        # An id that is misspelt is refused here; one that is forgotten later becomes a warning.
        resolve(records, group.clients, group.selector)
        if before is None or _content(before) != _content(group):
            now = self._clock.now()
            created_at = now if before is None else before.created_at
            records.groups.save(replace(group, created_at=created_at, updated_at=now))
            members = {"clients": " ".join(group.clients), "selector": group.selector or ""}
            facts: Detail = {**members, "new": before is None}
            record(records, principal, Act.GROUP_PUT, now, target=f"group:{group.name}", detail=facts)
        return _selected(records, group.name)


def _require_name(name: str) -> None:
    """`UnknownGroup` for a text that names none: PostgreSQL cannot even look for one with a NUL."""
    if _NAME.fullmatch(name) is None:
        raise UnknownGroup(name)


def _selected(records: Records, name: str) -> tuple[Group, Resolved]:
    group = records.groups.get(name)
    if group is None:
        raise UnknownGroup(name)
    return group, resolve(records, [f"{PREFIX}{name}"], None)


def _content(group: Group) -> tuple[tuple[str, ...], str | None, str]:
    return group.clients, group.selector, group.note


def _as_expected(client: Client, entry: ExpectedClient) -> Client:
    return replace(
        client,
        expected=True,
        set_labels=client.set_labels if entry.labels is None else dict(entry.labels),
        note=client.note if entry.note is None else entry.note,
    )


def _check_expected(entries: Sequence[ExpectedClient]) -> None:
    if not 1 <= len(entries) <= MAX_EXPECTED:
        message = f"name 1 to {MAX_EXPECTED} clients in one request"
        raise BadInput(message)
    seen: set[str] = set()
    for entry in entries:
        check_client_id(entry.client_id)
        if entry.client_id in seen:
            message = f"client {entry.client_id!r} is named twice"
            raise BadInput(message)
        seen.add(entry.client_id)
        _check_labels(entry.labels or {}, entry.client_id)
        _check_note(entry.note or "", entry.client_id)


def _check_labels(labels: Mapping[str, str], place: str) -> None:
    if len(labels) > MAX_LABELS:
        message = f"{place}: {len(labels)} labels, at most {MAX_LABELS} are allowed"
        raise BadInput(message)
    for name, value in labels.items():
        if not name or max(len(name), len(value)) > MAX_LABEL or not (selectable(name) and selectable(value)):
            message = (
                f"{place}: label {name[:MAX_LABEL]!r}: a name and a value have up to {MAX_LABEL} characters of text"
            )
            raise BadInput(message)


def _check_note(note: str, place: str) -> None:
    if len(note) > MAX_NOTE or not selectable(note):
        message = f"{place}: a note has at most {MAX_NOTE} characters of text"
        raise BadInput(message)


def _check_group(group: Group) -> None:
    if _NAME.fullmatch(group.name) is None:
        message = f"group {group.name!r}: a name has 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit"
        raise BadInput(message)
    if not group.clients and group.selector is None:
        message = f"group {group.name!r} selects no client: give it clients or a selector"
        raise BadInput(message)
    if len(group.clients) > MAX_ENTRIES:
        count = len(group.clients)
        message = f"group {group.name!r} has {count} entries, at most {MAX_ENTRIES}: set a label on them, and select it"
        raise BadInput(message)
    check_entries(group.clients, group.selector)
    _check_note(group.note, f"group {group.name!r}")


def _spelt(labels: Mapping[str, str | None]) -> str:
    """Labels in one line: `name=value`, and `name-` for one that is taken off."""
    return " ".join(f"{name}-" if value is None else f"{name}={value}" for name, value in sorted(labels.items()))
