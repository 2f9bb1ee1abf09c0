"""`backhaul-agent`: read the settings, take the state folder, work until told to stop.

Rule: only what the process is about; everything else is `device_agent.agent`'s.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from device_agent import VERSION
from device_agent.agent import Agent
from device_agent.errors import JournalError, SettingsError
from device_agent.logs import start_logging
from device_agent.settings import Settings, load_settings
from device_agent.state.installation import Installation
from device_agent.state.journal import Journal

log = logging.getLogger("device_agent")

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; 0 when it was stopped, 1 when its state folder is not to be had, 2 for a wrong setting."""
    told = _parser().parse_args(arguments)
    try:
        settings = load_settings(os.environ, told.env_file)
    except SettingsError as error:
        print(f"backhaul-agent: {error}", file=sys.stderr)  # noqa: T201 (before logging is set up)
        return USAGE
    if told.check:
        print("\n".join(settings.lines()))  # noqa: T201 (this is what was asked for)
        return DONE
    start_logging(settings.log_level)
    try:
        _work(settings)
    except JournalError as error:
        print(f"backhaul-agent: {error}", file=sys.stderr)  # noqa: T201 (the one line an operator needs)
        return FAILED
    return DONE


def _work(settings: Settings) -> None:
    journal, transfers = Journal.open(settings.state_dir)
    log.info("backhaul-agent %s is %s, with %d uploads at hand", VERSION, settings.client_id, len(transfers))
    if journal.dropped:
        log.warning("the last %d bytes of the journal were not whole and are ignored", journal.dropped)
    agent = Agent(settings, journal, transfers, Installation.open(settings.state_dir))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: agent.stop())
    agent.run()
    journal.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="backhaul-agent", description="Upload chosen files when told to over MQTT.")
    parser.add_argument("--check", action="store_true", help="print the settings, secrets left out, and exit")
    parser.add_argument("--env-file", type=Path, default=Path(".env"), help="settings beside the environment")
    parser.add_argument("--version", action="version", version=f"backhaul-agent {VERSION}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
