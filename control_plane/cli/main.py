"""The entry of `backhaul`.

What it creates, and what its child processes create, belongs to its user alone (umask 077): databases, logs, uploaded
files, state files.

Rule: imports no optional package before it can report which one is missing, and nothing heavy that the command
at hand does not need.
"""

import errno
import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from control_plane.cli.errors import BROKEN_PIPE, OutputLost, missing_extra
from control_plane.cli.streams import discard_stdout, flush_stderr, open_streams, print_error

if TYPE_CHECKING:
    import typer


_UNWRITABLE: Final = (errno.EBADF, errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What a write to a closed stream, a full or a failing disk raises."""

_COLLECT_AFTER: Final = (10_000, 20, 50)
"""Collector thresholds: the first is 700 by default. Modules and uploads make many objects and hardly a cycle: it saves
a tenth of a start and an eighth of an upload's CPU."""


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 usage, 3 unreachable, 130 Ctrl-C, 141 a closed pipe."""
    gc.set_threshold(*_COLLECT_AFTER)
    open_streams()
    _forget_sizes_of_zero()
    os.umask(0o077)
    try:
        app = _build_named(sys.argv[1:])
    except ImportError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        print_error(str(missing))
        sys.exit(missing.exit_code)
    code = _run(app)
    flush_stderr()
    if code:
        sys.exit(code)


def _run(app: "typer.Typer") -> int:
    """Run a command; its exit code, once all that it printed is written."""
    try:
        try:
            app()
        except SystemExit as ended:
            # typer prints help texts, and exits, by itself.
            sys.stdout.flush()
            return ended.code if isinstance(ended.code, int) else 1
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        discard_stdout()
        lost = OutputLost(error)
        print_error(str(lost))
        return lost.exit_code
    return 0


def _forget_sizes_of_zero() -> None:
    """A shell without a terminal may export COLUMNS=0: rich would believe it, and print nothing."""
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name, "").strip("0 ") == "":
            os.environ.pop(name, None)


def build() -> "typer.Typer":
    """Every command there is."""
    # Not at the top: typer and rich belong to the extra `cli`.
    from control_plane.cli import commands

    return commands.build()


def _build_named(words: Sequence[str]) -> "typer.Typer":
    """The command line that these words need: a server starts an eighth sooner without all other commands."""
    if words[:1] == ["serve"]:
        # Not at the top: as above.
        from control_plane.cli import serve

        return serve.build()
    return build()


if __name__ == "__main__":
    main()
