"""`backhaul-agent`: read the settings, open the state folder, work until a signal arrives.

Rule: command line, exit codes, signals and the death of a thread only; everything else is in `device_agent.bootstrap`.
"""

import argparse
import logging
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from device_agent import VERSION
from device_agent.bootstrap import open_agent
from device_agent.errors import JournalError, SettingsError
from device_agent.logs import start_logging
from device_agent.settings import ADMINISTRATOR, CONFIG_DIRS, Settings, load

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
_UNBOUNDED: Final = 10_000
"""Columns of an output that is no terminal."""

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; 0 when it was stopped, 2 for a wrong setting, 1 for its state folder and for its own faults."""
    options = _parser().parse_args(arguments)
    folders = options.config_dir or [folder for folder in CONFIG_DIRS if folder.is_dir()]
    try:
        loaded = load(os.environ, options.env_file, folders)
    except SettingsError as error:
        print(f"backhaul-agent: {error}", file=sys.stderr)  # noqa: T201 (before logging is set up)
        return USAGE
    settings = loaded.settings
    for warning in (*loaded.warnings, settings.exposure):
        if warning:
            print(f"backhaul-agent: {warning}", file=sys.stderr)  # noqa: T201 (no LOG_LEVEL may hide it)
    if options.command == "doctor":
        return _doctor(settings, put_url=options.put, as_document=options.json)
    if options.check:
        print("\n".join(loaded.lines()))  # noqa: T201 (the output of --check)
        return DONE
    start_logging(settings.log_level)
    try:
        own_files = (options.env_file, ADMINISTRATOR, *loaded.files)
        with open_agent(settings, own_files) as agent, _threads_end_the_process(), _signals_call(agent.stop):
            agent.run()
    except JournalError as error:
        print(f"backhaul-agent: {error}", file=sys.stderr)  # noqa: T201 (the one line an operator needs)
        return FAILED
    except Exception:
        log.critical("the agent ends: its loop met a fault", exc_info=True)
        return FAILED
    return DONE


def _doctor(settings: Settings, *, put_url: str | None, as_document: bool) -> int:
    """Examine this device; 0 when nothing is wrong, 1 otherwise."""
    # The agent itself needs none of this.
    from device_agent.diagnosis.doctor import examine  # noqa: PLC0415
    from device_agent.diagnosis.findings import as_json, shown  # noqa: PLC0415

    findings = list(examine(settings, put_url))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNBOUNDED
    print(as_json(findings) if as_document else shown(findings, width))  # noqa: T201 (the output of doctor)
    return DONE if all(one.fine for one in findings) else FAILED


@contextmanager
def _signals_call(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop`, from a separate thread, at the first SIGTERM or SIGINT; the next one ends the process.

    A signal that is ignored stays ignored. A handler in Python runs between two instructions of the main thread. For a
    signal just before that thread waits this is after the wait. The wakeup descriptor is written at once.
    """
    numbers = [one for one in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(one) is not signal.SIG_IGN]
    reader, writer = socket.socketpair()
    writer.setblocking(False)  # noqa: FBT003 (only by position)

    def listen() -> None:
        if reader.recv(1):
            stop()
            if second := reader.recv(1):
                os._exit(128 + second[0])

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    with reader:
        handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}
        before = signal.set_wakeup_fd(writer.fileno())
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            writer.close()
            thread.join()


@contextmanager
def _threads_end_the_process() -> Iterator[None]:
    """End the process when one of its threads dies, so that a service manager starts it again.

    It ends without a farewell: the journal is made for that, and the broker publishes the will.
    """

    def end(thrown: threading.ExceptHookArgs) -> None:
        name = thrown.thread.name if thrown.thread is not None else "without a name"
        error = thrown.exc_value or thrown.exc_type()
        log.critical("the agent ends: its thread %s met a fault", name, exc_info=error)
        logging.shutdown()
        os._exit(FAILED)

    before, threading.excepthook = threading.excepthook, end
    try:
        yield
    finally:
        threading.excepthook = before


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="backhaul-agent", description="Upload chosen files on commands over MQTT.")
    text = "examine this device instead: settings, folders, disk, clock, DNS, broker, object store; 1 when one is wrong"
    parser.add_argument("command", nargs="?", choices=["doctor"], help=text)
    parser.add_argument("--put", metavar="URL", help="with doctor: a presigned URL; one byte is PUT to it")
    parser.add_argument("--json", action="store_true", help="with doctor: print one JSON document")
    text = "print the settings and where each was set, secrets left out, and exit"
    parser.add_argument("--check", action="store_true", help=text)
    parser.add_argument("--env-file", type=Path, default=Path(".env"), help="settings beside the environment")
    text = (
        f"folder of *.toml with settings; may be repeated, a later one is stronger [{' '.join(map(str, CONFIG_DIRS))}]"
    )
    parser.add_argument("--config-dir", type=Path, action="append", metavar="DIR", help=text)
    parser.add_argument("--version", action="version", version=f"backhaul-agent {VERSION}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
