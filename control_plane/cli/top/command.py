"""`backhaul top`: uploads, jobs and clients in a terminal, live.

Rule: it needs a terminal and the extra `tui`; Textual is imported when the command runs.
"""

import os

from control_plane.cli.errors import Misused
from control_plane.cli.session import CliSession


def top(session: CliSession) -> None:
    """Show uploads, jobs and clients live; filter, open, pause, cancel and retry by key. q ends it."""
    # Textual belongs to the extra `tui`.
    from control_plane.cli.top.screens import Top

    if not session.output.redraws:
        text = "top draws on a terminal: `upload list --watch`, `job list --watch` and `events` print to a pipe"
        raise Misused(text)
    # One line now is better than an empty screen where there is no control plane.
    with session.connect() as plane:
        plane.call("GET", "/uploads", params={"limit": 1})
    # Textual reads the environment, and knows one of the two names only.
    os.environ.pop("NO_COLOR", None)
    if session.output.stdout.no_color:
        os.environ["NO_COLOR"] = "1"
    app = Top(session.connect, session.server, agreed=session.output.agreed, acts=session.output.asks)
    app.run()
    if app.interrupted:
        raise KeyboardInterrupt
