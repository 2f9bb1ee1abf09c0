"""Bearer tokens for the REST interface.

Rule: standard output has the token alone, so that `$(backhaul token create)` is one.
"""

from datetime import UTC, datetime, timedelta
from getpass import getuser
from typing import Annotated

import typer

from control_plane.cli.errors import Misused
from control_plane.cli.session import CliSession, local_command, new_app
from control_plane.cli.text import duration

Secret = Annotated[
    str | None,
    typer.Option(
        "--secret",
        envvar="JWT_SECRET",
        show_envvar=True,
        help="The control plane's own. Better in the environment or `.env` than on a command line.",
    ),
]
Subject = Annotated[str | None, typer.Option("--subject", "-s", help="Whom the token names. \\[the user]")]
Lifetime = Annotated[str, typer.Option("--lifetime", metavar="TIME", help="How long it is good: 8h, 30d.")]


def build() -> typer.Typer:
    """The group `token`."""
    app = new_app("Bearer tokens for the REST interface.")
    app.callback()(_token)
    app.command("create")(local_command(create))
    return app


def _token() -> None:
    """Bearer tokens for the REST interface."""


def create(session: CliSession, *, secret: Secret = None, subject: Subject = None, lifetime: Lifetime = "8h") -> None:
    """Print a token that a control plane with this JWT_SECRET accepts."""
    # Behind the command: fastapi and pyjwt belong to the extra `server`.
    from control_plane.api.auth import create_token

    seconds = duration(lifetime)
    if not seconds:
        text = f"--lifetime {lifetime!r} is no time: write 8h or 30d"
        raise Misused(text)
    name = subject or _user()
    key = _good(secret) if secret else _configured_secret()
    try:
        token = create_token(key, name, seconds)
    except ValueError as error:
        raise Misused(str(error)) from error
    expires_at = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds")
    session.output.result({"token": token, "subject": name, "expires_at": expires_at}, token)


def _good(secret: str) -> str:
    from control_plane.settings import require_secret

    try:
        return require_secret(secret)
    except ValueError as error:
        text = f"JWT_SECRET: {error}"
        raise Misused(text) from error


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError) as error:
        # As in a container that runs under a number.
        text = "this system knows no name of yours: give one with --subject"
        raise Misused(text) from error


def _configured_secret() -> str:
    """`JWT_SECRET` as the control plane would read it here: from the environment or `.env`."""
    from control_plane.settings import Settings, SettingsError

    try:
        secret = Settings.load().jwt_secret
    except SettingsError as error:
        raise Misused(str(error)) from error
    if secret is None:
        text = "JWT_SECRET is not set: give the control plane's own in the environment, in .env or with --secret"
        raise Misused(text)
    return secret.get_secret_value()
