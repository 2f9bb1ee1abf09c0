"""`backhaul demo`: a whole fleet on this machine, real files uploaded, every byte compared.

Rule: it leaves nothing behind: every process ends with it, and its folder is removed unless it is to be kept.
"""

import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Group
from rich.text import Text

from broker.child_process import ChildProcess, stop_all
from control_plane.cli.errors import CliError, Failed, Misused, Refused
from control_plane.cli.output import CliOutput
from control_plane.cli.rest.client import ControlPlane, read_object
from control_plane.cli.rest.progress import display_for, follow
from control_plane.cli.session import CliSession
from control_plane.cli.site.demo.agents import DemoDevice, file_digest, make_devices
from control_plane.cli.site.demo.job import run_job
from control_plane.cli.site.demo.report import (
    JobResult,
    Result,
    document,
    job_line,
    next_steps,
    places_table,
    results_table,
    seconds_of,
)
from control_plane.cli.site.operator_env import write_operator_file
from control_plane.cli.site.page import page_link
from control_plane.cli.site.signals import remove_after_exit, termination_as_interrupt, wait_for_termination
from control_plane.cli.site.stack import BrokerKind, Note, Site, SitePorts, running_site
from control_plane.cli.site.trust import ensure_trust

CONNECT_TIMEOUT: Final = 60.0
"""Seconds within which every agent has to be seen online."""

_POLL: Final = 0.1

Once = Annotated[bool, typer.Option("--once", help="Exit when the bytes are compared: 0 if all are the same.")]
Directory = Annotated[
    Path | None, typer.Option("--directory", "-d", metavar="DIR", help="Make its folder there. \\[the system's /tmp]")
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave its folder with files, objects and logs behind.")]

Kind = Annotated[BrokerKind, typer.Option("--broker", help="Which broker: auto takes mosquitto where it is installed.")]


def demo(
    session: CliSession, *, once: Once = False, directory: Directory = None, keep: Keep = False, broker: Kind = "auto"
) -> None:
    """Run a whole fleet on this machine: broker, store, control plane and three agents.

    Uploads real files, runs one job over the fleet, compares every byte, and stays until Ctrl-C for you to try things.
    """
    output = session.output
    with ExitStack() as stack:
        stack.enter_context(termination_as_interrupt())
        home = stack.enter_context(_home(directory, keep=keep))
        note = _step(output)
        site = stack.enter_context(running_site(home, SitePorts(broker_kind=broker), note=note))
        write_operator_file(site)
        note("making files of 1, 25 and 100 MiB")
        devices = make_devices(home / "devices")
        _enroll(site, devices, note)
        agents = stack.enter_context(_agents(site, devices))
        with site.connect() as plane:
            note("waiting for the agents")
            _wait_for_agents(plane, devices, agents)
            results = _upload_all(output, plane, devices)
            job = run_job(output, plane, devices, home / "fetched")
            link = page_link(plane)
        output.result(document(results, job, site, link), _report(results, job, site, agents, link, once=once))
        if not (job.good and all(result.good for result in results)):
            output.note(f"the demo failed: {f'the logs are in {home}' if keep else '--keep keeps its logs'}", "red")
            raise typer.Exit(Failed.exit_code)
        if not once:
            _stay(output, site)


@contextmanager
def _home(directory: Path | None, *, keep: bool) -> Iterator[Path]:
    try:
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(prefix="backhaul-demo-", dir=directory)).resolve()
    except OSError as error:
        text = f"{error.filename}: {error.strerror}"
        raise Misused(text) from error
    if keep:
        yield home
        return
    remove_after_exit(home)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _enroll(site: Site, devices: Sequence[DemoDevice], note: Note) -> None:
    """Make a root of trust, and enrol the devices: their commands are signed, and so is what they send."""
    if site.broker.kind != "mosquitto":
        note("the embedded broker passes no signatures: this fleet is unsigned")
        return
    note("enrolling the devices")
    with site.connect() as plane:
        ensure_trust(plane, site.directory)
        for device in devices:
            device.enroll(plane, site.agent_settings())


@contextmanager
def _agents(site: Site, devices: Sequence[DemoDevice]) -> Iterator[dict[str, ChildProcess]]:
    agents: dict[str, ChildProcess] = {}
    try:
        for device in devices:
            agents[device.client_id] = device.start(site.agent_settings(), site.directory / "agents")
        yield agents
    finally:
        stop_all(list(agents.values()))


def _wait_for_agents(plane: ControlPlane, devices: Sequence[DemoDevice], agents: dict[str, ChildProcess]) -> None:
    deadline = time.monotonic() + CONNECT_TIMEOUT
    waiting = {device.client_id for device in devices}
    while waiting:
        waiting = {client_id for client_id in waiting if not _connected(plane, client_id)}
        ended = [client_id for client_id in waiting if not agents[client_id].alive]
        late = sorted(waiting) if time.monotonic() > deadline else ended
        if late:
            text = f"the agent {late[0]} did not connect; its log ends:\n{agents[late[0]].log_tail()}"
            raise Failed(text)
        time.sleep(_POLL)


def _connected(plane: ControlPlane, client_id: str) -> bool:
    try:
        return bool(plane.status(client_id)["connected"])
    except Refused:
        # Not registered yet.
        return False


def _upload_all(output: CliOutput, plane: ControlPlane, devices: Sequence[DemoDevice]) -> list[Result]:
    upload_ids = [plane.trigger(device.client_id, {}, device.client_id)["upload_id"] for device in devices]
    with display_for(output) as display:
        uploads = follow(plane.upload, upload_ids, display)
    output.note("reading the objects back and comparing them with the devices' files")
    return [_compared(plane, device, upload) for device, upload in zip(devices, uploads, strict=True)]


def _compared(plane: ControlPlane, device: DemoDevice, upload: dict[str, Any]) -> Result:
    problem = ": ".join(str(part) for part in (upload.get("error"), upload.get("message")) if part) or None
    stored = None
    if upload["status"] == "completed":
        try:
            stored = _object_digest(plane.url(upload["upload_id"])["url"])
        except CliError as error:
            problem = str(error)
    return Result(
        client_id=device.client_id,
        upload_id=upload["upload_id"],
        file=device.file.name,
        file_size=device.file_size,
        status=upload["status"],
        proof=upload.get("proof"),
        seconds=seconds_of(upload),
        sha256=stored,
        identical=stored == file_digest(device.file),
        problem=problem,
    )


def _object_digest(url: str) -> str:
    digest = hashlib.sha256()
    for block in read_object(url):
        digest.update(block)
    return digest.hexdigest()


def _report(
    results: Sequence[Result], job: JobResult, site: Site, agents: dict[str, ChildProcess], link: str, *, once: bool
) -> Group:
    same = job.good and all(result.good for result in results)
    verdict = "Every object is byte for byte the device's file." if same else "Not every upload is good."
    shown = Text(verdict, style="bold green" if same else "bold red")
    head = ("", results_table(results), "", job_line(job), "", shown)
    if once or not same:
        return Group(*head)
    places = places_table(site, {client_id: agent.pid for client_id, agent in agents.items()})
    titles = (Text("What runs where", style="bold"), Text("What to try next", style="bold"))
    opens = Text(f"Open {link}", style="bold", no_wrap=True, overflow="ignore")
    return Group(*head, "", opens, "", titles[0], places, "", titles[1], next_steps(site), "")


def _stay(output: CliOutput, site: Site) -> None:
    output.note("it runs until Ctrl-C" if sys.stdin.isatty() else "it runs until SIGINT or SIGTERM")
    try:
        wait_for_termination(site.check)
    except KeyboardInterrupt:
        output.note("stopping")


def _step(output: CliOutput) -> Note:
    return lambda text: output.note(f"· {text}", "dim")
