"""`backhaul-agent`: read the settings, open the state folder, work until a signal arrives.

Rule: command line, exit codes, signals and the death of a thread only; everything else is in `device_agent.bootstrap`.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from device_agent.bootstrap import open_agent
from device_agent.command_line.parser import WITHOUT_SETTINGS, options_of, subcommand
from device_agent.command_line.screen import DONE, FAILED, USAGE
from device_agent.errors import JournalError, SettingsError, TrustError
from device_agent.logs import start_logging
from device_agent.settings import CONFIG_DIRS, is_there, load
from schemas.redaction import without_secrets

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; 0 when it was stopped, 2 for a wrong setting, 1 for its state folder and for its own faults.

    A root of trust that cannot be used is a wrong setting. The exit codes of subcommands are in
    `device_agent.command_line`.
    """
    options = options_of(arguments)
    folders = options.config_dir or [folder for folder in CONFIG_DIRS if is_there(folder)]
    if options.command in WITHOUT_SETTINGS:
        return subcommand(options, folders)
    try:
        loaded = load(os.environ, options.env_file, folders)
    except SettingsError as error:
        # A value that is refused may be a URL with a password.
        print(f"backhaul-agent: {without_secrets(str(error))}", file=sys.stderr)  # noqa: T201 (before logging is set up)
        return USAGE
    settings = loaded.settings
    for warning in (*loaded.warnings, settings.exposure):
        if warning:
            print(f"backhaul-agent: {warning}", file=sys.stderr)  # noqa: T201 (no LOG_LEVEL may hide it)
    if options.command is not None:
        return subcommand(options, folders, loaded)
    if options.check:
        print("\n".join(loaded.lines()))  # noqa: T201 (the output of --check)
        return DONE
    # What the agent writes belongs to its user alone. A subcommand writes settings that others have to read.
    os.umask(0o077)
    start_logging(settings.log_level)
    try:
        with (
            open_agent(settings, loaded.own_files, loaded.policy, loaded.bundle) as agent,
            _threads_end_the_process(),
            _signals_call(agent.stop),
        ):
            agent.run()
    except (JournalError, TrustError) as error:
        print(f"backhaul-agent: {error}", file=sys.stderr)  # noqa: T201 (the one line an operator needs)
        return USAGE if isinstance(error, TrustError) else FAILED
    except Exception:
        log.critical("the agent ends: its loop met a fault", exc_info=True)
        return FAILED
    return DONE


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


if __name__ == "__main__":
    sys.exit(main())
