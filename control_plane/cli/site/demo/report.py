"""The report of `backhaul demo`: the uploads, the addresses, and commands to try next.

Rule: every command that is printed works as it stands, in any shell of this machine.
"""

import shlex
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from control_plane.cli.program import command_line, program
from control_plane.cli.rest.client import Document
from control_plane.cli.site.operator_env import operator_file
from control_plane.cli.site.stack import BUCKET, Site
from control_plane.cli.text import MIB, instant, size, visible
from schemas.topics import Topics

TRY_CLIENT: Final = "restaurant-2"


@dataclass(frozen=True, slots=True)
class Result:
    """One upload of the demo. `identical`: the object's bytes have the SHA-256 of the device's file."""

    client_id: str
    upload_id: str
    file: str
    file_size: int
    status: str
    proof: str | None
    seconds: float | None
    sha256: str | None
    identical: bool
    problem: str | None = None

    @property
    def good(self) -> bool:
        """Whether it completed and every byte is the same."""
        return self.status == "completed" and self.identical

    @property
    def speed(self) -> str:
        """MiB a second, from the request to the proof."""
        return f"{self.file_size / MIB / self.seconds:.1f}" if self.seconds else "-"


@dataclass(frozen=True, slots=True)
class JobResult:
    """The job of the demo. `identical`: what was fetched has the SHA-256s of the devices' files."""

    job_id: str
    outcome: str
    clients: int
    files: int
    fetched: int
    identical: bool

    @property
    def good(self) -> bool:
        """Whether every file arrived."""
        return self.outcome == "all" and self.identical


def seconds_of(upload: Document) -> float | None:
    """The duration of an upload, by the control plane's clock."""
    begun, ended = instant(upload.get("created_at")), instant(upload.get("completed_at"))
    return round((ended - begun).total_seconds(), 3) if begun and ended else None


def document(results: Iterable[Result], job: JobResult, site: Site, link: str) -> dict[str, Any]:
    """The demo as one JSON document."""
    rows = list(results)
    return {
        "ok": job.good and all(row.good for row in rows),
        "uploads": [asdict(row) for row in rows],
        "job": asdict(job),
        "server": site.server,
        "page": link,
        "broker": {"kind": site.broker.kind, "url": site.broker.address.url},
        "store": {"endpoint": site.store.endpoint, "bucket": BUCKET},
        "directory": str(site.directory),
    }


def results_table(results: Iterable[Result]) -> Table:
    """The uploads, a line each."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name, justify in (
        ("client", "left"), ("file", "left"), ("size", "right"), ("s", "right"), ("MiB/s", "right"),
        ("proof", "left"), ("sha256", "left"),
    ):  # fmt: skip
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    for row in results:
        seconds = f"{row.seconds:.1f}" if row.seconds is not None else "-"
        table.add_row(
            row.client_id, visible(row.file), size(row.file_size), seconds, row.speed, row.proof or "-", _verdict(row)
        )
    return table


def job_line(job: JobResult) -> Text:
    """The job in one line."""
    verdict = Text("identical", style="green") if job.good else Text(job.outcome, style="bold red")
    text = f"job {job.job_id}: {job.fetched} of {job.files} files of {job.clients} clients fetched, "
    return Text.assemble(text, verdict)


def places_table(site: Site, agents: dict[str, int]) -> Table:
    """The programs and their addresses."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for name, place in (
        ("control plane", f"{site.server}  (its calls: {site.server}/openapi.json)"),
        ("broker", f"{site.broker.address.url}  ({site.broker.kind})"),
        ("store", f"{site.store.endpoint}/{BUCKET}"),
        ("agents", ", ".join(f"{client_id} (pid {pid})" for client_id, pid in agents.items())),
        ("files, logs", str(site.directory)),
    ):
        table.add_row(Text(name, style="dim"), Text(place, overflow="fold"))
    return table


def next_steps(site: Site) -> Group:
    """Commands to try, each on one line, to be copied."""
    backhaul = program()
    broker = f"-V 5 -h {site.broker.address.host} -p {site.broker.address.port}"
    topics = Topics()
    token = ' -H "Authorization: Bearer $BACKHAUL_TOKEN"' if site.secret else ""
    by_hand = '{"message_id":"by-hand-1","action":"download_file","payload":{}}'
    lines = (
        "# settings for every shell that tries these",
        f"set -a; . {shlex.quote(str(operator_file(site)))}; set +a",
        f"{backhaul} clients",
        command_line("trigger", "--wait", about=[TRY_CLIENT]),
        f"{backhaul} files restaurant-3",
        f"{backhaul} watch",
        "",
        "# one request over the fleet, and its files in a folder",
        f"{backhaul} job create --id next-logs -l demo=yes --type logs --wait",
        command_line("job", "pull", about=["next-logs", str(site.directory / "next-logs")]),
        "",
        "# the same over HTTP",
        f"curl{token} -X POST {site.server}/trigger-download/restaurant-1",
        f"curl{token} {site.server}/uploads",
        "",
        "# by hand over MQTT; each command needs a message_id of its own"
        + ("" if shutil.which("mosquitto_pub") else " (apt-get install mosquitto-clients)"),
        f"mosquitto_sub {broker} -i cli-listener -v -t '{topics.root}/#'",
        f"mosquitto_pub {broker} -i cli-by-hand -q 1 -t {topics.command('restaurant-1')} -m '{by_hand}'",
    )
    # Strings, not cells: a command must not be wrapped at the edge of the terminal.
    return Group(
        *(Text(line, style="dim" if line.startswith("#") else "", no_wrap=True, overflow="ignore") for line in lines)
    )


def _verdict(row: Result) -> Text:
    if row.good:
        return Text("identical", style="green")
    return Text("DIFFERS" if row.status == "completed" else visible(row.problem or row.status), style="bold red")
