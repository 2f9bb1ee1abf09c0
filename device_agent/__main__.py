"""`backhaul-agent`: read the settings, open the state folder, work until a signal arrives.

Rule: command line, exit codes and signals only; everything else is in `device_agent.bootstrap`.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from device_agent import VERSION
from device_agent.bootstrap import open_agent
from device_agent.errors import JournalError, SettingsError
from device_agent.logs import start_logging
from device_agent.settings import load_settings

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; 0 when it was stopped, 1 when its state folder cannot be used, 2 for a wrong setting."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings(os.environ, options.env_file)
    except SettingsError as error:
        print(f"backhaul-agent: {error}", file=sys.stderr)  # noqa: T201 (before logging is set up)
        return USAGE
    if options.check:
        print("\n".join(settings.lines()))  # noqa: T201 (the output of --check)
        return DONE
    start_logging(settings.log_level)
    try:
        with open_agent(settings) as agent:
            _stop_at_signals(agent.stop)
            agent.run()
    except JournalError as error:
        print(f"backhaul-agent: {error}", file=sys.stderr)  # noqa: T201 (the one line an operator needs)
        return FAILED
    return DONE


def _stop_at_signals(stop: Callable[[], None]) -> None:
    """The first SIGTERM or SIGINT stops in order, the next one ends the process; an ignored signal stays ignored."""
    numbers = [one for one in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(one) is not signal.SIG_IGN]

    def first(_number: int, _frame: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        stop()

    for number in numbers:
        signal.signal(number, first)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="backhaul-agent", description="Upload chosen files on commands over MQTT.")
    parser.add_argument("--check", action="store_true", help="print the settings, secrets left out, and exit")
    parser.add_argument("--env-file", type=Path, default=Path(".env"), help="settings beside the environment")
    parser.add_argument("--version", action="version", version=f"backhaul-agent {VERSION}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
