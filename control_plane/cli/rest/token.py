"""Bearer tokens for the REST interface.

Rule: standard output has the token alone, so that `$(backhaul token create)` is one.
"""

from datetime import UTC, datetime, timedelta
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from control_plane.cli.errors import Misused
from control_plane.cli.secret_files import secret_from
from control_plane.cli.session import CliSession, Tree, local_command, new_app
from control_plane.cli.text import duration

if TYPE_CHECKING:
    from control_plane.settings import Settings

_DAY: Final = 86_400.0

SecretFile = Annotated[
    Path | None,
    typer.Option("--secret-file", help="Holds the control plane's own; - is stdin. \\[JWT_SECRET, or .env]"),
]
Subject = Annotated[str | None, typer.Option("--subject", "-s", help="Who the token names. \\[the user]")]
Lifetime = Annotated[
    str, typer.Option("--lifetime", metavar="TIME", help="How long it is valid: 8h; at most MAX_TOKEN_LIFETIME.")
]


def build() -> Tree:
    """The group `token`."""
    app = new_app("Bearer tokens for the REST interface.")
    app.callback()(_token)
    app.command("create")(local_command(create))
    return app


def _token() -> None:
    """Bearer tokens for the REST interface."""


def create(
    session: CliSession, *, secret_file: SecretFile = None, subject: Subject = None, lifetime: Lifetime = "8h"
) -> None:
    """Print a token that a control plane with this JWT_SECRET and MAX_TOKEN_LIFETIME accepts."""
    # Behind the command: fastapi and pyjwt belong to the extra `server`.
    from control_plane.api.auth import create_token

    seconds = duration(lifetime)
    if not seconds:
        text = f"--lifetime {lifetime!r} is no time: write 8h or 30m"
        raise Misused(text)
    name = subject or _user()
    settings = _settings()
    most = settings.max_token_lifetime
    if seconds > most:
        text = f"--lifetime {lifetime}: the control plane accepts at most {most:,} s (MAX_TOKEN_LIFETIME)"
        raise Misused(text)
    try:
        token = create_token(_key(secret_file, settings), name, seconds)
    except ValueError as error:
        raise Misused(str(error)) from error
    expires_at = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds")
    session.output.result({"token": token, "subject": name, "expires_at": expires_at}, token)


def operator_token(secret: str) -> str:
    """A token for this user, for a day, with the secret of a site of this machine; `Misused` for a bad secret."""
    from control_plane.api.auth import create_token
    from control_plane.settings import require_secret

    try:
        return create_token(require_secret(secret), _user(), _DAY)
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


def _settings() -> "Settings":
    """The settings of the control plane, as it would read them here."""
    from control_plane.settings import Settings, SettingsError

    try:
        return Settings.load()
    except SettingsError as error:
        raise Misused(str(error)) from error


def _key(secret_file: Path | None, settings: "Settings") -> str:
    from control_plane.settings import require_secret

    configured = settings.jwt_secret and settings.jwt_secret.get_secret_value()
    secret = secret_from(secret_file, "JWT_SECRET") if secret_file else configured
    if not secret:
        text = "JWT_SECRET is not set: give the control plane's own in the environment, in .env or with --secret-file"
        raise Misused(text)
    try:
        return require_secret(secret)
    except ValueError as error:
        text = f"JWT_SECRET: {error}"
        raise Misused(text) from error
