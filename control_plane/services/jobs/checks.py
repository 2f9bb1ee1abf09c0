"""What is checked of a new job before anything is made: that its clients exist, and can do what it requests.

Rule: inside the caller's transaction. What no client can do is an error; what some cannot do is a warning.
"""

import posixpath
import re
from collections.abc import Iterable, Sequence
from typing import Final

from control_plane.domain.clients import Client
from control_plane.domain.jobs.keys import KeyFacts, Template
from control_plane.domain.jobs.spec import JobSpec
from control_plane.services.clients.targeting import resolve
from control_plane.services.errors import BadInput
from control_plane.services.ports.database import Records
from schemas.messages import KEEP
from schemas.sealing.recipients import sealing_contradiction
from schemas.values import Feature

CAPABILITY: Final = "select_files"
_GLOB: Final = re.compile(r"[*?\[]")
_NAMED: Final = 3
_BATCH: Final = 1_000


def check_new(
    records: Records, job_id: str, spec: JobSpec, now: float, *, scheduled: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The clients that a new job matches, sorted, and warnings; `scheduled`: the job is that of a schedule.

    `UnknownClient`, `SelectorError`, `BadInput`: no client matches a snapshot, a key that needs a schedule, paths
    outside the roots of every client. Of a schedule, clients may match later, and the key may name it.
    """
    if contradiction := sealing_contradiction(spec.options, spec.after):
        raise BadInput(contradiction)
    targets = spec.targets
    resolved = resolve(records, targets.clients, targets.selector, targets.reach)
    if not resolved.client_ids and spec.targets.mode == "snapshot" and not scheduled:
        message = "targets: no client matches"
        raise BadInput(message)
    if "schedule" in Template.parse(spec.key).fields and not scheduled:
        message = "key: {schedule} has a value in a job of a schedule only"
        raise BadInput(message)
    found = _read(records, resolved.client_ids)
    return resolved.client_ids, (*resolved.warnings, *warnings_of(job_id, spec, found, now))


def _read(records: Records, client_ids: Sequence[str]) -> list[Client]:
    found: list[Client] = []
    for start in range(0, len(client_ids), _BATCH):
        found += records.clients.among(client_ids[start : start + _BATCH]).values()
    return found


def warnings_of(job_id: str, spec: JobSpec, clients: Sequence[Client], now: float) -> list[str]:
    """What of the request some clients cannot do, a sentence each; `BadInput` for a path that no client allows."""
    seen = [client for client in clients if not client.never_seen]
    warnings = [
        _about([client for client in clients if client.never_seen], "was never seen", "were never seen"),
        _about(
            [client for client in seen if CAPABILITY not in client.capabilities],
            "has an agent that cannot select files: its execution fails",
            "have agents that cannot select files: their executions fail",
        ),
        _about(
            [client for client in seen if spec.after != KEEP and Feature.AFTER not in client.capabilities],
            "has an agent that can delete and move no files: its execution fails",
            "have agents that can delete and move no files: their executions fail",
        ),
        _about(
            [client for client in seen if spec.options.encrypt_to and Feature.SEALED not in client.capabilities],
            "has an agent that can seal no files: its execution fails",
            "have agents that can seal no files: their executions fail",
        ),
        *(_outside(path, clients) for path in _paths(job_id, spec, now)),
    ]
    if spec.files.type is not None:
        lacking = [client for client in seen if spec.files.type not in client.types]
        warnings.append(_about(lacking, *(f"does not know the file type {spec.files.type!r}",) * 2))
    if any(window.zone == "device" for window in spec.windows):
        lacking = [client for client in seen if client.timezone is None]
        warnings.append(_about(lacking, *(f"reports no time zone: its windows are in {spec.zone}",) * 2))
    for name in sorted(Template.parse(spec.key).fields):
        if name.startswith("label."):
            label = name.removeprefix("label.")
            lacking = [client for client in clients if label not in client.effective_labels]
            warnings.append(_about(lacking, *(f"has no label {label!r}: its files fail with bad_key",) * 2))
    return [warning for warning in warnings if warning is not None]


def _paths(job_id: str, spec: JobSpec, now: float) -> Iterable[str]:
    facts = KeyFacts(job=job_id, tick_at=now, zone=spec.zone)
    return (Template.parse(path).fill(facts) for path in spec.files.paths)


def _outside(path: str, clients: Sequence[Client]) -> str | None:
    """`BadInput` when the path is outside the roots of every client; a warning when it is outside those of some."""
    known = [client for client in clients if client.roots]
    outside = [
        client
        for client in known
        if path != client.default_file and not any(_may_hold(root, path) for root in client.roots)
    ]
    if not outside:
        return None
    if len(outside) == len(clients):
        message = f"files.paths: {path!r} is outside the roots of every client that matches"
        raise BadInput(message)
    return _about(outside, *(f"does not allow {path!r}",) * 2)


def _may_hold(root: str, path: str) -> bool:
    """Whether a file below the root can match the glob: the folder before its first wildcard is above or below it."""
    magic = _GLOB.search(path)
    fixed = path if magic is None else path[: magic.start()].rpartition("/")[0] or "/"
    root, fixed = posixpath.normpath(root), posixpath.normpath(fixed)
    return _contains(root, fixed) or (magic is not None and _contains(fixed, root))


def _contains(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _about(clients: Sequence[Client], one: str, many: str) -> str | None:
    if not clients:
        return None
    names = ", ".join(client.client_id for client in clients[:_NAMED]) + ("…" if len(clients) > _NAMED else "")
    return f"1 client {one}: {names}" if len(clients) == 1 else f"{len(clients)} clients {many}: {names}"
