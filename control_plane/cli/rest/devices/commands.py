"""Commands for devices: enrol, list, look, approve, rotate, revoke.

Rule: each is one call of the control plane. A secret goes into a file, never onto a terminal.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from control_plane.cli.errors import Misused
from control_plane.cli.layout import Column, Listing, Row
from control_plane.cli.rest.answers.shapes import DEVICE, DEVICE_REQUESTS, DEVICES
from control_plane.cli.rest.client import segment
from control_plane.cli.rest.devices import batches
from control_plane.cli.rest.devices.bundle_file import STDOUT, require_place, write_bundle
from control_plane.cli.rest.devices.wanted import DefaultFile, Hosts, Labels, Note, RootFolders, wanted
from control_plane.cli.session import CliSession, Tree, new_app, rest_command
from control_plane.cli.text import moment, visible

Device = Annotated[str, typer.Argument(metavar="DEVICE", help="The name of the device: its client id.")]
Code = Annotated[str, typer.Argument(metavar="CODE", help="The code that the device shows: 4F7K-2QXM.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Takes the bundle; - is standard output.")]
Called = Annotated[
    str | None,
    typer.Option("--name", "-n", metavar="DEVICE", help="The name that the device gets; else the one of its batch."),
]
Print = Annotated[
    str | None, typer.Option("--fingerprint", metavar="HEX", help="The one on the device's screen; for scripts.")
]
Unsigned = Annotated[
    bool, typer.Option("--unsigned", help="Its name may speak unsigned again. For a device that does.")
]
Keep = Annotated[
    bool,
    typer.Option("--keep-account", help="Its password at the broker goes on. For a device that is at work already."),
]
Keys = Annotated[bool, typer.Option("--keys", help="The whole public keys, and who is behind the published list.")]


_FINGERPRINT: Final = re.compile("[0-9a-f]{32}")


def build() -> Tree:
    """The group `device`."""
    app = new_app("Devices: their accounts, their keys, and who they are.")
    app.command("enroll")(rest_command(enroll))
    app.command("list")(rest_command(list_devices, DEVICES))
    app.command("show")(rest_command(show, DEVICE))
    app.command("requests")(rest_command(requests, DEVICE_REQUESTS))
    app.command("approve")(rest_command(approve, DEVICE))
    app.command("reject")(rest_command(reject))
    app.command("rotate")(rest_command(rotate))
    app.command("revoke")(rest_command(revoke, DEVICE))
    app.command("accept-key")(rest_command(accept_key, DEVICE))
    app.command("forget")(rest_command(forget))
    app.add_typer(batches.build(), name="batch")
    return app


def enroll(  # noqa: PLR0913 - one for each option
    session: CliSession,
    device: Device,
    *,
    out: Out,
    roots: RootFolders = None,
    hosts: Hosts = None,
    file: DefaultFile = None,
    label: Labels = None,
    note: Note = "",
    keep_account: Keep = False,
) -> None:
    """Enrol a device: make its account and its bundle, a file that it starts with."""
    require_place(out)
    body = {"client_id": device, "keep_account": keep_account, **wanted(roots, hosts, file, label, note)}
    with session.connect() as plane:
        bundle = plane.call("POST", "/devices", json=body)
    _give(session, out, bundle, keeps=keep_account)


def rotate(
    session: CliSession,
    device: Device,
    *,
    out: Out,
    roots: RootFolders = None,
    hosts: Hosts = None,
    file: DefaultFile = None,
    label: Labels = None,
    note: Note = "",
) -> None:
    """Make a new bundle: a new password and a new claim. A revoked device is enrolled again.

    Give the --roots and --hosts of its enrolment once more: the control plane does not keep them.
    """
    require_place(out)
    session.output.confirm(f"Refuse the present password of {device}, and make a new bundle?")
    with session.connect() as plane:
        bundle = plane.call("POST", f"{_path(device)}/rotate", json=wanted(roots, hosts, file, label, note))
    _give(session, out, bundle)
    missing = [
        option for option, name in (("--roots", "allowed_roots"), ("--hosts", "upload_hosts")) if not bundle[name]
    ]
    if missing:
        # The control plane keeps no settings of a device: what it was enrolled with has to be typed again.
        session.output.note(
            f"the bundle does not bring its {' and '.join(missing)}: without them in settings of its own the device "
            "sends nothing"
        )


def list_devices(session: CliSession, *, keys: Keys = False) -> None:
    """List the enrolled devices."""
    with session.connect() as plane:
        answer = plane.pages("/devices", "devices", {})
        latest = plane.call("GET", "/keys")["version"] if keys else None
    key = "public_key" if keys else "fingerprint"
    columns = (
        Column("device", lambda row: row["client_id"], whole=True),
        Column("state", _state),
        Column("key" if keys else "fingerprint", lambda row: row[key] or "", whole=True),
        *([Column("obeys", lambda row: _obeyed(row, latest))] if keys else ()),
        Column("pinned", lambda row: moment(row["pinned_at"])),
        Column("by", lambda row: row["created_by"]),
        Column("note", lambda row: row["note"]),
    )
    none = f"no devices; `{session.step('device', 'enroll', '--help')}` shows how to enrol one"
    session.output.result(answer, Listing(columns, answer["devices"]), none)


def show(session: CliSession, device: Device) -> None:
    """Show one device: its state, its key, whether another key was seen."""
    with session.connect() as plane:
        answer = plane.call("GET", _path(device))
    session.output.result(answer, _view(answer))


def requests(session: CliSession) -> None:
    """List the devices that show a code and wait."""
    with session.connect() as plane:
        answer = plane.call("GET", "/enrollments")
    columns = (
        Column("code", lambda row: row["user_code"], whole=True),
        Column("fingerprint", lambda row: row["fingerprint"], whole=True),
        Column("name", lambda row: row.get("proposed") or ""),
        Column("from", lambda row: row["address"]),
        Column("since", lambda row: moment(row["asked_at"])),
    )
    session.output.result(answer, Listing(columns, answer["requests"]), "no device waits")


def approve(  # noqa: PLR0913 - one for each option
    session: CliSession,
    code: Code,
    *,
    name: Called = None,
    roots: RootFolders = None,
    hosts: Hosts = None,
    file: DefaultFile = None,
    label: Labels = None,
    note: Note = "",
    fingerprint: Print = None,
) -> None:
    """Enrol the device that shows this code. Compare its fingerprint with the screen of the device."""
    settings = wanted(roots, hosts, file, label, note)
    seen = None if fingerprint is None else _grouped(fingerprint)
    with session.connect() as plane:
        if seen is None:
            _require_person(session)
        asks = {} if seen and name else _asked(plane.call("GET", "/enrollments"), code)
        called = name or asks.get("proposed")
        if not called:
            text = "this device is of no batch that names it: give its name with --name"
            raise Misused(text)
        shown = seen or str(asks["fingerprint"])
        if seen is None:
            session.output.confirm(f"Does the device show the fingerprint {shown}? Enrol it as {called}?")
        body = {"client_id": called, "fingerprint": shown, **settings}
        answer = plane.call("POST", f"/enrollments/{segment(code)}/approve", json=body)
    session.output.result(answer, _view(answer))


def reject(session: CliSession, code: Code) -> None:
    """Reject the device that shows this code."""
    session.output.confirm(f"Reject the device that shows {code}?")
    with session.connect() as plane:
        plane.call("POST", f"/enrollments/{segment(code)}/reject", empty=True)
    session.output.result({"user_code": code, "rejected": True}, f"{visible(code)} is rejected")


def revoke(session: CliSession, device: Device) -> None:
    """Take nothing of a device any more, end its uploads, and remove its account. Its key is refused for ever."""
    session.output.confirm(f"Revoke {device}? Its key is refused from now on, under any name.")
    with session.connect() as plane:
        answer = plane.call("POST", f"{_path(device)}/revoke", repeatable=True)
    if not answer["has_account"]:
        session.output.note(
            "its account at the broker was made elsewhere: without BROKER_ACCESS, `broker revoke` ends it"
        )
    session.output.result(answer, _view(answer))


def accept_key(session: CliSession, device: Device, *, fingerprint: Print = None) -> None:
    """Accept the key that raised the alarm; the former key is refused from now on."""
    with session.connect() as plane:
        shown = None if fingerprint is None else _grouped(fingerprint)
        if shown is None:
            _require_person(session)
            shown = plane.call("GET", _path(device))["other_fingerprint"]
            if shown is None:
                text = f"{device} is in no alarm: no other key was seen under its name"
                raise Misused(text)
            session.output.confirm(f"Does the device show the fingerprint {shown}? Accept this key for {device}?")
        answer = plane.call("POST", f"{_path(device)}/accept-key", json={"fingerprint": shown})
    session.output.result(answer, _view(answer))


def forget(session: CliSession, device: Device, *, unsigned: Unsigned = False) -> None:
    """Delete a revoked device from the registry; its key stays refused, and so does its name if it has signed."""
    then = " Whoever has its name may then speak unsigned." if unsigned else ""
    session.output.confirm(f"Forget the revoked device {device}?{then}")
    with session.connect() as plane:
        plane.delete(_path(device), {"unsigned": "true"} if unsigned else None)
    session.output.result({"client_id": device, "deleted": True}, f"device {visible(device)} is forgotten")


def _grouped(fingerprint: str) -> str:
    """As the control plane writes it: eight groups of four digits; `Misused` for what is no fingerprint."""
    digits = "".join(fingerprint.lower().split())
    if not _FINGERPRINT.fullmatch(digits):
        text = f"--fingerprint {fingerprint!r}: give the 32 hex digits on the device's screen"
        raise Misused(text)
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def _require_person(session: CliSession) -> None:
    """`Misused` where no person is asked, as in a script, or with `--yes`."""
    if session.output.agreed or not session.output.asks:
        text = "no person compares the fingerprint: give the one on the device's screen with --fingerprint"
        raise Misused(text)


def _asked(answer: dict[str, Any], code: str) -> Row:
    letters = code.upper().replace("-", "")
    for row in answer["requests"]:
        if row["user_code"].replace("-", "") == letters:
            return dict(row)
    text = f"no device shows {code}: it is wrong, or has expired"
    raise Misused(text)


def _give(session: CliSession, out: Path, bundle: dict[str, Any], *, keeps: bool = False) -> None:
    write_bundle(out, bundle)
    note = session.output.note
    if bundle["mqtt_password"] is None and not keeps:
        note("it has no account at the broker (BROKER_ACCESS is not set): make one with `broker enroll`")
    if bundle["root"] is None:
        note("the fleet has no root of trust: this device obeys unsigned commands")
    if out != STDOUT:
        facts = {"client_id": bundle["client_id"], "file": str(out), "signed": bundle["root"] is not None}
        session.output.result(
            facts, f"{visible(bundle['client_id'])} is enrolled; its bundle is in {visible(str(out))}"
        )


def _path(device: str) -> str:
    return f"/devices/{segment(device)}"


def _state(row: Row) -> str:
    return f"{row['state']}, another key" if row["other_fingerprint"] else str(row["state"])


def _obeyed(row: Row, latest: int | None) -> Text:
    """The list of keys that a device obeys, beside the one that is published."""
    version = row["keys_version"]
    if version is None:
        return Text("-")
    behind = latest is not None and version < latest
    return Text(f"{version}, behind {latest}" if behind else str(version), style="yellow" if behind else "")


def _view(row: Row) -> str:
    lines = [
        f"device {visible(row['client_id'])}: {_state(row)}",
        f"key: {row['fingerprint'] or 'not known yet'}",
        f"enrolled: {moment(row['created_at'])} by {visible(row['created_by'])}",
    ]
    if row["pinned_at"]:
        lines.append(f"pinned: {moment(row['pinned_at'])}")
    if row["keys_version"] is not None:
        lines.append(f"obeys: version {row['keys_version']} of the keys")
    if row["awaits_claim"]:
        lines.append("its bundle waits for its first presence")
    if row["other_fingerprint"]:
        lines.append(f"another key: {row['other_fingerprint']}, seen {moment(row['other_seen_at'])}: nothing is sent")
    if row["revoked_at"]:
        lines.append(f"revoked: {moment(row['revoked_at'])} by {visible(row['revoked_by'])}")
    if row["note"]:
        lines.append(visible(row["note"]))
    return "\n".join(lines)
