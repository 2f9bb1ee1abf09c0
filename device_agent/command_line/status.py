"""`backhaul-agent status`: what the running agent does, and why something waits.

Rule: the running agent answers; without one it shows how to start it. 0 online, 1 offline or its disk fails, 2 no
answer.
"""

import os
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from device_agent.command_line.screen import DONE, FAILED, USAGE, complain, show, wrapped
from device_agent.errors import SettingsError
from device_agent.local.model import BrokerState, LocalStatus, LocalUpload, SignedState
from device_agent.local.reader import NoAnswer, NotAllowed, NotRunning, read_status
from device_agent.local.socket_path import SYSTEM_FOLDER, local_folders
from device_agent.settings import load_settings
from device_agent.trust.mode import SIGNED, UNSIGNED
from schemas.values import DeviceBudget

_UNITS: Final = (Path("/lib/systemd/system"), Path("/etc/systemd/system"))
_NAME: Final = 12
_MIB: Final = 1024 * 1024
_SHOWN: Final = 20
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def run_status(options: Namespace, folders: Sequence[Path]) -> int:
    """Show the state of the agent that runs on this device."""
    wrong: SettingsError | None = None
    try:
        settings = load_settings(os.environ, options.env_file, folders)
        places, client_id = local_folders(settings.state_dir, os.environ), settings.client_id
    except SettingsError as error:
        places, client_id, wrong = (), None, error
    try:
        found = _of_this_device(places, client_id)
    except NotRunning:
        return _not_running(wrong, as_document=options.json)
    except NotAllowed as error:
        complain(f"{error} belongs to the agent's user: try sudo backhaul-agent status")
        return USAGE
    except NoAnswer as error:
        complain(str(error))
        return USAGE
    show(msgspec.json.encode(found).decode() if options.json else "\n".join(_lines(found)))
    return DONE if found.broker.connected and found.journal.failing is None else FAILED


def has_unit() -> bool:
    """Whether this system has the unit of the package."""
    return any((folder / "backhaul-agent.service").exists() for folder in _UNITS)


def _of_this_device(places: Sequence[Path], client_id: str | None) -> LocalStatus:
    """The agent of these settings; else the one of the unit, unless it is another one."""
    try:
        return read_status(places)
    except NotRunning:
        found = read_status([SYSTEM_FOLDER])
        if client_id not in {None, found.client_id}:
            raise
        return found


def _not_running(wrong: SettingsError | None, *, as_document: bool) -> int:
    start = "systemctl start backhaul-agent" if has_unit() else "backhaul-agent"
    if as_document:
        document = {"running": False, "start": start, "error": None if wrong is None else str(wrong)}
        show(msgspec.json.encode(document).decode())
    elif wrong is not None:
        complain(f"no agent runs, and none can start: {wrong}")
    else:
        complain(f"no agent runs on this device; start it: {start}")
    return USAGE


def _lines(found: LocalStatus) -> Iterator[str]:
    now = found.clock.now
    yield wrapped(_headline(found))
    yield ""
    yield _row("broker", _broker(found.broker, now))
    yield _row("agent", f"{found.version}, process {found.pid}, for {_duration(now - found.started_at)}")
    yield from _trust(found.signed)
    free = "" if found.journal.disk_free is None else f", {found.journal.disk_free / _MIB:,.0f} MiB free"
    yield _row("journal", f"{found.journal.folder}: {found.journal.failing or 'kept on disk'}{free}")
    for note in found.clock.notes:
        yield _row("clock", note)
    policy = found.policy
    readable = (
        *policy.roots,
        *filter(None, (policy.file,)),
        *(one for globs in policy.types.values() for one in globs),
    )
    yield _row("may read", ", ".join(readable) or "nothing: set ALLOWED_ROOTS")
    yield _row("may send to", ", ".join(policy.hosts) or "no host: set UPLOAD_HOSTS")
    for rule in policy.rules:
        yield _row("policy", rule)
    if found.budget is not None:
        yield from _budget(found.budget)
    for condition in found.conditions:
        yield _row("held back", condition)
    yield _row("uploads", str(found.uploads_open) if found.uploads_open else "none")
    if found.requests:
        yield _row("consent", f"{len(found.requests)} wait for a person: backhaul-agent requests")
    for upload in found.uploads[:_SHOWN]:
        yield wrapped(_upload(upload), " " * _NAME)
        if upload.reason is not None:
            yield wrapped(upload.reason, " " * (_NAME + 2), " " * _NAME + "- ")
    if found.uploads_open > _SHOWN:
        yield _row("", f"and {found.uploads_open - _SHOWN} more: backhaul-agent status --json")


def _trust(signed: SignedState | None) -> Iterator[str]:
    if signed is None:
        yield _row("commands", f"{UNSIGNED}: each account that may publish its topics commands this device")
        return
    keys = f"the list of keys {signed.keys_version}" if signed.keys_version else "no list of keys yet: none is obeyed"
    yield _row("commands", f"{SIGNED}: root of trust {signed.root}, {keys}; {signed.unverified} were not verified")
    yield _row("key", f"{signed.fingerprint} ({signed.key})")


def _budget(budget: DeviceBudget) -> Iterator[str]:
    for name, use in budget.caps.items():
        metered, _, span = name.rpartition("_")
        more = ", metered" if metered else ""
        yield _row("budget", f"{use.used / _MIB:,.1f} of {use.cap / _MIB:,.1f} MiB this {span}{more}")


def _headline(found: LocalStatus) -> str:
    if found.journal.failing is not None:
        return f"{found.client_id} takes no command: {found.journal.failing}"
    if found.broker.connected:
        return f"{found.client_id} is online."
    why = "" if found.broker.last_error is None else f": {found.broker.last_error}"
    return f"{found.client_id} is offline{why}"


def _broker(broker: BrokerState, now: float) -> str:
    if broker.connected:
        return f"{broker.url}, connected for {_duration(now - broker.since)}"
    last = "never connected" if broker.last_contact_at is None else f"last connected {_at(broker.last_contact_at)}"
    again = "" if broker.next_try_at is None else f"; next try in {_duration(broker.next_try_at - now)}"
    return f"{broker.url}, {last}{again}"


def _upload(upload: LocalUpload) -> str:
    share = f", {100 * upload.bytes_sent / upload.size:.0f} % of {upload.size:,} bytes" if upload.size else ""
    return f"{upload.path or upload.upload_id}: {upload.state}{share}"


def _row(name: str, text: str) -> str:
    return wrapped(text, " " * _NAME, f"{name:<{_NAME}}")


def _at(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _duration(seconds: float) -> str:
    """A time in one unit.

    >>> _duration(7.2), _duration(600), _duration(7300), _duration(200_000)
    ('7 s', '10 min', '2 h', '2 days')
    """
    whole = max(0, round(seconds))
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < 2 * _HOUR:
        return f"{whole // _MINUTE} min"
    return f"{whole // _HOUR} h" if whole < 2 * _DAY else f"{whole // _DAY} days"
