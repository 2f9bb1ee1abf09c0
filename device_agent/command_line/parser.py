"""The options of `backhaul-agent`, and which module carries out a subcommand.

Rule: the options of every form stand before or after the subcommand. Each subcommand returns its exit code.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from device_agent import VERSION
from device_agent.enrolment.bundle import BUNDLE_FILE
from device_agent.settings import CONFIG_DIRS, LoadedSettings

if TYPE_CHECKING:
    import argparse

WITHOUT_SETTINGS: Final = frozenset({"enroll", "requests", "setup", "status"})
"""Subcommands that are also for a device with missing or wrong settings."""

ENV_FILE: Final = Path(".env")

_CODES: Final = "Exit codes: 0 done, 1 something is wrong, 2 wrong usage or settings."


def options_of(arguments: Sequence[str] | None) -> "argparse.Namespace":
    """The options in these arguments, or in those of the process; a wrong one ends it."""
    given = sys.argv[1:] if arguments is None else arguments
    if given:
        return parser().parse_args(given)
    # As the service is started: argparse and the texts for people would stay in its memory as long as it runs.
    none = SimpleNamespace(check=False, env_file=ENV_FILE, config_dir=None, command=None)
    return cast("argparse.Namespace", none)


def parser() -> "argparse.ArgumentParser":
    """All options, and the subcommands as `command`, None for the agent itself."""
    import argparse  # noqa: PLC0415 (see `options_of`)

    text = "Upload chosen files on commands over MQTT. Without a subcommand it runs the agent."
    made = argparse.ArgumentParser(prog="backhaul-agent", description=text, epilog=_CODES)
    text = "print the settings and where each was set, secrets left out, and exit"
    made.add_argument("--check", action="store_true", help=text)
    made.add_argument("--version", action="version", version=f"backhaul-agent {VERSION}")
    _add_sources(made, env_file=ENV_FILE, config_dir=None)
    subcommands = made.add_subparsers(dest="command", metavar="SUBCOMMAND")

    def add(name: str, text: str, codes: str = _CODES) -> "argparse.ArgumentParser":
        # Beside an option that was given before the subcommand, a default here would replace it.
        added = subcommands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=codes)
        _add_sources(added, env_file=argparse.SUPPRESS, config_dir=argparse.SUPPRESS)
        return added

    setup = add("setup", "ask what is missing, check it, and write the settings")
    setup.add_argument("--all", action="store_true", help="ask also what is set already")
    setup.add_argument("--answers", type=Path, metavar="FILE", help="a TOML file with the answers: nothing is asked")
    setup.add_argument("--put", metavar="URL", help="a presigned URL of the object store; one byte is PUT to it")
    setup.add_argument("--write-anyway", action="store_true", help="with --answers: write although a check failed")
    setup.add_argument("--bundle", type=Path, metavar="FILE", help="the file that an operator made for this device")
    codes = "Exit codes: 0 enrolled, 1 refused or not approved; 2 wrong usage."
    enroll = add("enroll", "show a code, and wait until an operator approves it", codes)
    enroll.add_argument("--url", required=True, metavar="URL", help="the control plane: https://…")
    enroll.add_argument("--root-sha256", required=True, metavar="HEX", help="of the fleet's root of trust")
    enroll.add_argument("--ca-file", metavar="FILE", help="authorities of the control plane, in PEM")
    enroll.add_argument("--batch-token-file", metavar="FILE", help="the token of a batch; - is standard input")
    enroll.add_argument("--serial", metavar="TEXT", help="what the list of the batch calls this device")
    enroll.add_argument("--out", type=Path, default=BUNDLE_FILE, metavar="FILE", help=f"the bundle [{BUNDLE_FILE}]")
    codes = "Exit codes: 0 online, 1 offline, or its disk fails; 2 no agent runs, or it does not answer."
    status = add("status", "show what the running agent does, and why something waits", codes)
    status.add_argument("--json", action="store_true", help="print one JSON document")
    doctor = add("doctor", "examine this device: settings, folders, disk, clock, DNS, broker, object store")
    doctor.add_argument("--put", metavar="URL", help="a presigned URL of the object store; one byte is PUT to it")
    doctor.add_argument("--json", action="store_true", help="print one JSON document")
    codes = "Exit codes: 0 done, 1 one was not decided; 2 no agent runs, or it does not answer."
    requests = add("requests", "show the uploads that wait for a person's consent, and decide about them", codes)
    requests.add_argument("verdict", nargs="?", choices=("approve", "deny"), help="without it they are shown")
    requests.add_argument("uploads", nargs="*", metavar="UPLOAD", help="an upload id, or the beginning of one")
    requests.add_argument("--all", action="store_true", help="all that wait now")
    requests.add_argument("--json", action="store_true", help="print one JSON document")
    codes = "Exit codes: 0 the file may be read, 1 it may not, 2 wrong usage or settings."
    explain = add("explain", "show whether a file may be uploaded from this device, and which rule decides", codes)
    explain.add_argument("path", metavar="PATH", help="the file")
    explain.add_argument("--json", action="store_true", help="print one JSON document")
    return made


def subcommand(options: "argparse.Namespace", folders: Sequence[Path], loaded: LoadedSettings | None = None) -> int:
    """Carry out a subcommand; `folders` are those of the settings, which only some subcommands need."""
    # The agent itself needs none of these.
    if options.command == "setup":
        from device_agent.command_line.setup.command import run_setup  # noqa: PLC0415

        return run_setup(options, folders)
    if options.command == "enroll":
        from device_agent.command_line.enroll import run_enroll  # noqa: PLC0415

        return run_enroll(options)
    if options.command == "status":
        from device_agent.command_line.status import run_status  # noqa: PLC0415

        return run_status(options, folders)
    if options.command == "requests":
        from device_agent.command_line.requests import run_requests  # noqa: PLC0415

        return run_requests(options, folders)
    if loaded is None:
        text = f"{options.command} needs settings"
        raise ValueError(text)
    if options.command == "doctor":
        from device_agent.command_line.doctor import run_doctor  # noqa: PLC0415

        return run_doctor(options, loaded.settings)
    from device_agent.command_line.explain import run_explain  # noqa: PLC0415

    return run_explain(options, loaded)


def _add_sources(made: "argparse.ArgumentParser", *, env_file: Any, config_dir: Any) -> None:  # noqa: ANN401 (defaults)
    made.add_argument("--env-file", type=Path, default=env_file, help="settings beside the environment")
    text = (
        f"folder of *.toml with settings; may be repeated, a later one is stronger [{' '.join(map(str, CONFIG_DIRS))}]"
    )
    made.add_argument("--config-dir", type=Path, action="append", default=config_dir, metavar="DIR", help=text)
