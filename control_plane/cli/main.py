"""The entry of `backhaul`.

What it creates, and what its child processes create, belongs to its user alone (umask 077): databases, logs, uploaded
files, state files.

Rule: imports no optional package before it can report which one is missing, and nothing heavy that the command
at hand does not need.
"""

import os
import sys
from typing import TYPE_CHECKING

from control_plane.cli.errors import missing_extra

if TYPE_CHECKING:
    import typer


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 usage, 3 unreachable, 130 Ctrl-C."""
    os.umask(0o077)
    try:
        app = build()
    except ImportError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        sys.stderr.write(f"backhaul: {missing}\n")
        sys.exit(missing.exit_code)
    app()


def build() -> "typer.Typer":
    """Every command there is."""
    # Not at the top: typer and rich belong to the extra `cli`.
    from control_plane.cli import commands

    return commands.build()


if __name__ == "__main__":
    main()
