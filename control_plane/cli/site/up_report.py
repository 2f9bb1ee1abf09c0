"""The report of `backhaul up`: addresses, what the object store enforces, and how a device joins.

Rule: every command that is printed works as it stands.
"""

import shlex
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from control_plane.cli.rest.client import Document
from control_plane.cli.site.broker import ACCESS
from control_plane.cli.site.operator_env import operator_file, program
from control_plane.cli.site.stack import BUCKET, Site, unready
from control_plane.cli.text import visible

EXAMPLE: Final = "restaurant-1"


def document(site: Site, readiness: Document) -> dict[str, Any]:
    """The site as one JSON document."""
    return {
        "server": site.server,
        "agent": site.agent_settings(),
        "broker": {"kind": site.broker.kind, "url": site.broker.address.url},
        "store": {"endpoint": site.store.endpoint, "bucket": BUCKET},
        "data": str(site.directory),
        "readiness": readiness,
    }


def report(site: Site, readiness: Document, *, authenticated: bool) -> Group:
    """The site for a person."""
    steps = _steps(site, authenticated=authenticated)
    return Group(
        _places(site, readiness),
        "",
        Text("A device joins with", style="bold"),
        *(Text(line, style="dim" if line.startswith("#") else "", no_wrap=True, overflow="ignore") for line in steps),
        "",
    )


def enforced(probe: Document | None) -> str:
    """What the object store enforces, as text (protocol.md section 5)."""
    if not probe:
        return "it has not been probed"
    found = [
        f"parts bound by {', '.join(probe['part_digests'])}" if probe.get("part_digests") else None,
        f"objects bound by {', '.join(probe['object_digests'])}" if probe.get("object_digests") else None,
        "no overwriting when told so" if probe.get("if_none_match") else None,
        "ETags are MD5s" if probe.get("etag_is_md5") else None,
        "encrypted" if probe.get("encrypts") else None,
    ]
    return "; ".join(filter(None, found)) or "nothing"


def _places(site: Site, readiness: Document) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for name, place in (
        ("control plane", f"{site.server}  (its calls: {site.server}/openapi.json)"),
        ("broker", f"{', '.join(address.url for address in site.broker.addresses)}  ({site.broker.kind})"),
        ("store", f"{site.store.endpoint}/{BUCKET}"),
        ("it enforces", enforced(readiness.get("probe"))),
        ("not ready", "; ".join(unready(readiness))),
        ("data", str(site.directory)),
    ):
        if place:
            table.add_row(Text(name, style="dim"), Text(visible(place), overflow="fold"))
    return table


def _steps(site: Site, *, authenticated: bool) -> tuple[str, ...]:
    settings = {"CLIENT_ID": EXAMPLE, "FILE_PATH": "/data/test-file.bin", **site.agent_settings()}
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    accounts = site.directory / "broker" / ACCESS
    enroll = f"{program()} broker enroll {EXAMPLE} --directory {shlex.quote(str(accounts))}"
    password = ("# its account, once; it prints the password", enroll) if authenticated else ()
    secret = f"MQTT_USERNAME={EXAMPLE} MQTT_PASSWORD=… " if authenticated else ""
    return (
        *password,
        "# on the device; its state and an unfinished upload survive in STATE_DIR",
        f"{variables} {secret}STATE_DIR=~/.local/state/backhaul-agent backhaul-agent",
        "",
        "# then, on this machine",
        f"set -a; . {shlex.quote(str(operator_file(site)))}; set +a",
        f"{program()} trigger {EXAMPLE} --wait",
    )
