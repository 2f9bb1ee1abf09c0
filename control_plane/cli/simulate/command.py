"""`backhaul simulate`: thousands of devices in one process, to size a broker and a control plane with.

Rule: the devices are simulated, their traffic is real: MQTT to the broker, PUTs to the granted URLs.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from control_plane.cli.errors import Misused, Unreachable
from control_plane.cli.secret_files import secret_from
from control_plane.cli.serve import allow_many_files
from control_plane.cli.session import CliSession
from control_plane.cli.simulate.fleet import Fleet, FleetSettings
from control_plane.cli.simulate.triggering import ServerAddress, TriggerReport, trigger_all
from schemas.errors import SchemaError

_EVERY: Final = 5.0
_OFFLINE_TIME: Final = 0.5
_MOST: Final = 15_000
"""Connections that one process may hold: a broker, like this process, has 20,000 descriptors or fewer by default."""

Devices = Annotated[int, typer.Option("--devices", "-n", min=1, max=_MOST, help="How many.")]
FileSize = Annotated[int, typer.Option("--file-size", min=0, help="Bytes of the file that each of them has.")]
Files = Annotated[int, typer.Option("--files", min=1, max=10_000, help="How many files each of them has.")]
Failing = Annotated[float, typer.Option("--failing", min=0, max=1, help="Share of them that fail every upload.")]
FailingOnce = Annotated[
    float, typer.Option("--failing-once", min=0, max=1, help="Share of them that fail the first upload of each file.")
]
MqttUrl = Annotated[str, typer.Option("--mqtt-url", envvar="MQTT_URL", help="mqtt://host:1883 or mqtts://host:8883.")]
Name = Annotated[str, typer.Option("--username", help="Client id and username; {} is the device's number.")]
First = Annotated[int, typer.Option("--first", min=0, help="The first device's number, for a second process.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", help="Holds their password at the broker; - is stdin. \\[env var: MQTT_PASSWORD]"),
]
CaFile = Annotated[str | None, typer.Option("--ca-file", help="Trust this CA, for mqtts:// and https://.")]
BundleFolder = Annotated[
    Path | None,
    typer.Option("--bundles", help="A folder with CLIENT_ID.json of `device enroll`: such devices sign."),
]
Rate = Annotated[float, typer.Option("--rate", min=1, help="Connections a second.")]
Duration = Annotated[float, typer.Option("--duration", min=0, help="Seconds to stay connected; 0 is until Ctrl-C.")]
Trigger = Annotated[bool, typer.Option("--trigger", help="Trigger one upload per device over REST, wait, and exit.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Uploads per device that are triggered.")]
AtOnce = Annotated[int, typer.Option("--triggers-at-once", min=1, max=256, help="Triggers in flight.")]
Patience = Annotated[float, typer.Option("--patience", min=1, help="Seconds to wait for connections, and for ends.")]


def simulate(  # noqa: PLR0913 - every option of the command
    session: CliSession,
    *,
    devices: Devices = 100,
    files: Files = 1,
    file_size: FileSize = 4096,
    failing: Failing = 0.0,
    failing_once: FailingOnce = 0.0,
    mqtt_url: MqttUrl = "mqtt://127.0.0.1:1883",
    username: Name = "simulated-{}",
    first: First = 1,
    password_file: PasswordFile = None,
    ca_file: CaFile = None,
    bundles: BundleFolder = None,
    rate: Rate = 500.0,
    duration: Duration = 0.0,
    trigger: Trigger = False,
    rounds: Rounds = 1,
    triggers_at_once: AtOnce = 32,
    patience: Patience = 300.0,
) -> None:
    """Run many simulated devices, to size a broker and a control plane."""
    settings = FleetSettings(
        devices=devices,
        mqtt_url=mqtt_url,
        name=username,
        first=first,
        password=secret_from(password_file, "MQTT_PASSWORD"),
        files=files,
        file_size=file_size,
        failing=failing,
        failing_once=failing_once,
        rate=rate,
        ca_file=ca_file,
        bundles=bundles,
    )
    server = ServerAddress(session.server, session.token)
    allow_many_files()

    async def work() -> None:
        fleet = _fleet(settings)
        async with _Running(session, fleet):
            await _wait_connected(fleet, devices, patience)
            session.output.note(f"{fleet.counters.connected} of {devices} devices are connected")
            done = None
            if trigger:
                done = await trigger_all(fleet, server, at_once=triggers_at_once, patience=patience, rounds=rounds)
            if duration or not trigger:
                await asyncio.sleep(duration or float("inf"))
            _report(session, fleet, done)

    asyncio.run(work())


class _Running:
    """The fleet while it runs; at the end, however it comes, every device publishes that it is offline."""

    def __init__(self, session: CliSession, fleet: Fleet) -> None:
        self._session = session
        self._fleet = fleet
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.create_task(self._fleet.run())]
        if not self._session.output.as_json:
            self._tasks.append(asyncio.create_task(self._report_progress()))

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._fleet.leave()
        await asyncio.sleep(_OFFLINE_TIME)

    async def _report_progress(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            self._session.output.note(_line(self._fleet))


def _fleet(settings: FleetSettings) -> Fleet:
    try:
        return Fleet(settings)
    except (SchemaError, ValueError, KeyError, IndexError, OSError) as error:
        text = f"--username, --mqtt-url, --ca-file or --bundles is wrong: {error}"
        raise Misused(text) from error


async def _wait_connected(fleet: Fleet, devices: int, patience: float) -> None:
    if not await fleet.counters.until(lambda: fleet.counters.connected >= devices, patience):
        why = next(iter(fleet.counters.errors), "nothing answers")
        text = f"only {fleet.counters.connected} of {devices} devices are connected after {patience:.0f} s: {why}"
        raise Unreachable(text)


def _report(session: CliSession, fleet: Fleet, done: TriggerReport | None) -> None:
    document = _document(fleet, done)
    view = [_line(fleet)]
    if done is not None:
        view.append(
            f"{done.outcomes.get('completed', 0)} of {done.triggered} uploads completed in {done.seconds:.1f} s:"
            f" {done.uploads_per_minute:,.0f} a minute"
        )
    view += [f"{count} times {error}" for error, count in fleet.counters.errors.most_common(10)]
    session.output.result(document, "\n".join(view))


def _document(fleet: Fleet, done: TriggerReport | None) -> dict[str, Any]:
    counters = fleet.counters
    document: dict[str, Any] = {
        "connected": counters.connected,
        "connects": counters.connects,
        "commands": counters.commands,
        "puts": counters.puts,
        "bytes_sent": counters.bytes_sent,
        "outcomes": dict(counters.outcomes),
        "errors": dict(counters.errors),
    }
    if done is not None:
        document |= {
            "triggered": done.triggered,
            "refused": done.refused,
            "seconds": round(done.seconds, 3),
            "triggering_seconds": round(done.triggering_seconds, 3),
            "uploads_per_minute": round(done.uploads_per_minute, 1),
        }
    return document


def _line(fleet: Fleet) -> str:
    counters = fleet.counters
    ended = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counters.outcomes.items())) or "none ended"
    parts = f"{counters.puts} parts ({counters.bytes_sent:,} bytes)"
    return f"{counters.connected} connected, {counters.commands} commands, {parts}, uploads: {ended}"
