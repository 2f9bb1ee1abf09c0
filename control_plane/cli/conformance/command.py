"""`backhaul conformance`: what an agent gets wrong, section by section.

Rule: parses and prints; `bench` and `runner` do the work.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.session import CliSession
from control_plane.cli.site.signals import remove_after_exit, termination_as_interrupt
from control_plane.cli.site.stack import BrokerKind
from schemas.errors import SchemaError
from schemas.topics import require_client_id

if TYPE_CHECKING:
    from control_plane.cli.conformance.bench.setup import BenchOptions
    from control_plane.cli.conformance.bench.site import Bench
    from control_plane.cli.conformance.catalogue import Check
    from control_plane.cli.conformance.runner import CheckResult

_ARRIVAL: Final = 600.0
"""Seconds in which a person starts the agent."""

_START: Final = 60.0
"""Seconds in which an agent that the kit started has to connect."""

Client = Annotated[str, typer.Option("--client", "-c", metavar="CLIENT", help="The agent's client id.")]
Command = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- COMMAND…]", help="Starts the agent, with its settings in the environment."),
]
Folder = Annotated[
    Path | None,
    typer.Option("--folder", metavar="DIR", help="The kit writes files there; the agent may read it. \\[a new one]"),
]
DeviceFile = Annotated[
    str | None,
    typer.Option("--file", metavar="PATH", help="A file of the device, of 11 to 64 MiB, where the kit can write none."),
]
Listen = Annotated[str, typer.Option("--listen", metavar="ADDRESS", help="The agent reaches the kit there.")]
MqttPort = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port for the agent's MQTT. \\[a free one]")]
StorePort = Annotated[int, typer.Option("--store-port", min=0, max=65535, help="Port for its PUTs. \\[a free one]")]
Kind = Annotated[BrokerKind, typer.Option("--broker", help="Which broker to start where MQTT_URL names none.")]
Patience = Annotated[
    float, typer.Option("--patience", min=0.5, metavar="SECONDS", help="Longest wait for each answer.")
]
Only = Annotated[list[str] | None, typer.Option("--only", metavar="CHECK", help="This check, or this group of checks.")]
Long = Annotated[bool, typer.Option("--long", help="Run the checks of several minutes too.")]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit report too.")]
ListThem = Annotated[bool, typer.Option("--list", help="Show the checks, and run none.")]


def conformance(  # noqa: PLR0913 - each parameter is an option that a person types
    session: CliSession,
    command: Command = None,
    *,
    client: Client = "kit-device",
    folder: Folder = None,
    device_file: DeviceFile = None,
    listen: Listen = "127.0.0.1",
    mqtt_port: MqttPort = 0,
    store_port: StorePort = 0,
    broker: Kind = "auto",
    patience: Patience = 15.0,
    only: Only = None,
    long: Long = False,
    junit: Junit = None,
    list_them: ListThem = False,
) -> None:
    """Check an agent against docs/protocol.md, and report what it gets wrong.

    The broker is that of MQTT_URL, else one of this machine; the object store for one whole upload is that of
    AWS_ENDPOINT and S3_BUCKET_NAME. Exits 0 when the agent conforms, 1 when it does not, 3 when it does not connect.
    """
    # Behind the command: the checks and the engine take half a second to import.
    from control_plane.cli.conformance import checks as _  # noqa: F401 - fills the catalogue
    from control_plane.cli.conformance.bench.setup import BenchOptions
    from control_plane.cli.conformance.runner import chosen

    wanted = chosen(only or ())
    if list_them:
        _show_list(session, wanted)
        return
    try:
        require_client_id(client)
    except SchemaError as error:
        raise Misused(str(error)) from error
    if folder is not None and device_file is not None:
        text = "--folder and --file are two ways: choose one"
        raise Misused(text)
    with termination_as_interrupt(), _home() as home:
        options = BenchOptions(
            client_id=client,
            directory=home,
            folder=folder,
            device_file=device_file,
            listen=listen,
            mqtt_port=mqtt_port,
            store_port=store_port,
            broker_kind=broker,
            patience=patience,
            long=long,
            command=tuple(command or ()),
        )
        results = asyncio.run(_examine(session, options, wanted))
    _finish(session, client, results, junit)


async def _examine(session: CliSession, options: "BenchOptions", wanted: list["Check"]) -> list["CheckResult"]:
    from control_plane.cli.conformance.bench.setup import agent_settings, bench_of
    from control_plane.cli.conformance.catalogue import STORE
    from control_plane.cli.conformance.report import line
    from control_plane.cli.conformance.runner import run_checks
    from control_plane.cli.mqtt.engine import load_settings

    real_store = any(STORE in check.needs for check in wanted)
    async with bench_of(options, load_settings(), real_store=real_store) as bench:
        if not options.command:
            _invite(session, bench, agent_settings(bench))
        arrival = _START if options.command else _ARRIVAL
        show = session.output.stderr.print
        return await run_checks(
            bench, wanted, arrival=arrival, on_result=lambda result: show(line(result), soft_wrap=True)
        )


def _invite(session: CliSession, bench: "Bench", settings: dict[str, str]) -> None:
    note = session.output.note
    note("start the agent with these settings:", "bold")
    for name, value in settings.items():
        note(f"  {name}={value}")
    if bench.samples.folder is None:
        note("  (it must be allowed to read the file that --file names)")
    note(f"waiting {_ARRIVAL / 60:.0f} minutes for it; Ctrl-C ends")


def _show_list(session: CliSession, wanted: list["Check"]) -> None:
    from control_plane.cli.conformance.report import place

    keys = ("identifier", "section", "title", "remedy", "needs")
    listed = [{key: getattr(check, key) for key in keys} for check in wanted]
    lines = [f"{check.identifier:<28} {check.title} ({place(check)})" for check in wanted]
    session.output.result(listed, "\n".join(lines))


def _finish(session: CliSession, client: str, results: list["CheckResult"], junit: Path | None) -> None:
    from control_plane.cli.conformance import report

    if junit is not None:
        try:
            junit.write_text(report.junit(client, results))
        except OSError as error:
            text = f"--junit {junit}: {error.strerror}"
            raise Misused(text) from error
    found = report.document(client, results)
    session.output.result(found, report.view(client, results))
    if not found["conforms"]:
        raise typer.Exit(Failed.exit_code)


@contextmanager
def _home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="backhaul-conformance-")).resolve()
    remove_after_exit(home)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
