"""`backhaul serve`: the control plane alone.

Rule: a wrong setting or a taken port is reported in one line before anything starts; the cost of a client is limited.
"""

import gc
import resource
import signal
import socket
import sys
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.session import CliSession, Tree, local_command, new_root
from control_plane.services.errors import ServiceError

if TYPE_CHECKING:
    from control_plane.api.server import WatchedServer
    from control_plane.settings import Settings

_BACKLOG: Final = 512
_TURN: Final = 0.001
"""Seconds after which a thread that computes lets another one go on."""

Check = Annotated[bool, typer.Option("--check", help="Only check the settings.")]


def serve(session: CliSession, *, check: Check = False) -> None:
    """Run the control plane with its settings (environment, and `.env` beside it)."""
    # Behind the command: these need the extra `server`.
    from control_plane.bootstrap import database_place
    from control_plane.observability import configure_logging
    from control_plane.settings import Settings, SettingsError

    try:
        settings = Settings.load()
    except SettingsError as error:
        raise Misused(str(error)) from error
    if check:
        session.output.result({"settings": "ok"}, "the settings are good")
        return
    say = configure_logging(settings.log_level)
    if settings.auth == "off" and settings.open_to_all:
        # Not a log line: no LOG_LEVEL may hide it.
        say("AUTH=off and no JWT_SECRET: every caller that reaches this server may command every client")
    if settings.exposure:
        say(settings.exposure)
    server = _server(settings)
    listener = _listen(settings.server_host, settings.server_port)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    database = database_place(settings)
    if session.output.as_json:
        session.output.document({"url": url, "database": database})
    else:
        say(f"the control plane listens at {url}; its database is {database}")
    _tune_interpreter()
    allow_many_files()
    _exit_with_0_at_sigterm()
    server.run(sockets=[listener])
    if server.deserted:
        text = "the control plane met a fault of its own and has ended: the log above names it"
        raise Failed(text)


def build() -> Tree:
    """The command line with this command alone."""
    app = new_root()
    register(app, "")
    return app


def register(app: Tree, panel: str) -> None:
    """Add the command to the command line."""
    app.command("serve", rich_help_panel=panel)(local_command(serve))


def _server(settings: "Settings") -> "WatchedServer":
    """The application behind the limits of `api.server`.

    `Failed` when its database cannot be used, `Misused` when there is no place for it.
    """
    # Behind the command: these need the extra `server`.
    from control_plane.api.server import WatchedServer, server_config
    from control_plane.bootstrap import create_app
    from control_plane.settings import SettingsError

    try:
        app = create_app(settings)
    except SettingsError as error:
        raise Misused(str(error)) from error
    except ServiceError as error:
        raise Failed(str(error)) from error
    host, port = settings.server_host, settings.server_port
    return WatchedServer(server_config(app, host, port, behind_proxy=settings.behind_proxy))


def _exit_with_0_at_sigterm() -> None:
    """A stop is no failure. uvicorn stops in order first, and then raises the signal once more."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(0)

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


def allow_many_files() -> None:
    """As many open files as this process may have: each event stream, and each simulated device, holds one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _tune_interpreter() -> None:
    """Exclude loaded modules from collections, and let a request wait less for a thread that computes.

    A request and its reads of the database take turns several times; each turn may wait for a thread that counts a
    large fleet, 5 ms by default.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_TURN)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=_BACKLOG)
    except OSError as error:
        text = f"cannot listen at SERVER_HOST={host} SERVER_PORT={port}: {error.strerror or error}"
        raise Failed(text) from error
