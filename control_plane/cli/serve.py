"""`backhaul serve`: the control plane alone.

Rule: a wrong setting or a taken port is one clear line before anything starts; what a client may cost us is limited.
"""

import socket
from typing import TYPE_CHECKING, Annotated, Final

import typer

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.logs import configure_logging
from control_plane.cli.session import Session

if TYPE_CHECKING:
    from uvicorn import Server

    from control_plane.settings import Settings

MAX_HEAD: Final = 16 * 1024
"""Bytes of a request's head; longer ones are refused."""

KEEP_ALIVE: Final = 15
"""Seconds for which an idle connection is kept."""

MAX_CONNECTIONS: Final = 1000
"""Connections and requests at one time; beyond it the answer is 503."""

GRACE: Final = 5
"""Seconds for which open requests are waited for at the end; event streams never end by themselves."""

_BACKLOG: Final = 512

Check = Annotated[bool, typer.Option("--check", help="Only check the settings.")]


def serve(session: Session, *, check: Check = False) -> None:
    """Run the control plane as its settings say (environment, and `.env` beside it)."""
    from control_plane.settings import Settings, SettingsError  # noqa: PLC0415 - the extra `server`

    try:
        settings = Settings.load()
    except SettingsError as error:
        raise Misused(str(error)) from error
    if check:
        session.output.result({"settings": "ok"}, "the settings are good")
        return
    configure_logging(settings.log_level)
    listener = _listen(settings.server_host, settings.server_port)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if session.output.as_json:
        session.output.document({"url": url})
    else:
        session.output.say(f"the control plane listens at {url}")
    _server(settings).run(sockets=[listener])


def _server(settings: "Settings") -> "Server":
    import uvicorn  # noqa: PLC0415 - the extra `server`

    from control_plane.app import create_app  # noqa: PLC0415

    config = uvicorn.Config(
        create_app(settings),
        http="h11",
        h11_max_incomplete_event_size=MAX_HEAD,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        backlog=_BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
    )
    return uvicorn.Server(config)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=_BACKLOG)
    except OSError as error:
        text = f"cannot listen at SERVER_HOST={host} SERVER_PORT={port}: {error.strerror or error}"
        raise Failed(text) from error
