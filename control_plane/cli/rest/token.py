"""Bearer tokens for the REST interface.

Rule: standard output of `create` has the token alone, so that `$(backhaul token create)` is one. `create` needs the
secret and no control plane; the others call one.
"""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from control_plane.cli.errors import Misused
from control_plane.cli.layout import Column, Listing, Row
from control_plane.cli.rest.answers.shapes import TOKEN, TOKENS
from control_plane.cli.rest.client import segment
from control_plane.cli.secret_files import secret_from
from control_plane.cli.session import CliSession, Tree, local_command, new_app, rest_command
from control_plane.cli.text import duration, moment, visible

if TYPE_CHECKING:
    from control_plane.domain.access import Principal
    from control_plane.settings import Settings

_DAY: Final = 86_400.0

SecretFile = Annotated[
    Path | None,
    typer.Option("--secret-file", help="Holds the control plane's own; - is stdin. \\[JWT_SECRET, or .env]"),
]
Subject = Annotated[str | None, typer.Option("--subject", "-s", help="Who the token names. \\[the user]")]
Lifetime = Annotated[
    str,
    typer.Option("--lifetime", metavar="TIME", help="How long it is valid: 8h; at most MAX_TOKEN_LIFETIME."),
]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", metavar="SCOPE", help="What it may do, such as uploads:read; repeatable. \\[everything]"),
]
OfClients = Annotated[
    str | None,
    typer.Option("--clients", metavar="SELECTOR", help="The clients that it sees, such as site=berlin. \\[all]"),
]
TokenId = Annotated[str, typer.Argument(metavar="TOKEN", help="The token's id; - reads the token itself from stdin.")]
_TOKEN: Final = re.compile(r"ey[^.]*\.[^.]*\.[^.]*")
"""A token: three parts, of which the first is JSON in base64. Its id may have dots too."""


def build() -> Tree:
    """The group `token`."""
    app = new_app("Bearer tokens for the REST interface.")
    app.callback()(_token)
    app.command("create")(local_command(create))
    app.command("list")(rest_command(list_tokens, TOKENS))
    app.command("show")(rest_command(show, TOKEN))
    app.command("revoke")(rest_command(revoke, TOKEN))
    return app


def _token() -> None:
    """Bearer tokens for the REST interface."""


def create(
    session: CliSession,
    *,
    secret_file: SecretFile = None,
    subject: Subject = None,
    lifetime: Lifetime = "8h",
    scopes: Scopes = None,
    clients: OfClients = None,
) -> None:
    """Print a token that a control plane with this JWT_SECRET and MAX_TOKEN_LIFETIME accepts."""
    # Behind the command: fastapi and pyjwt belong to the extra `server`.
    from control_plane.api.auth import create_token, new_token_id

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
    who = _principal(name, scopes, clients, new_token_id())
    try:
        token = create_token(_key(secret_file, settings), who, seconds)
    except ValueError as error:
        raise Misused(str(error)) from error
    expires_at = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds")
    facts = {
        "token": token,
        "token_id": who.token_id,
        "subject": name,
        "scopes": sorted(who.scopes),
        "clients": who.clients,
        "expires_at": expires_at,
    }
    session.output.result(facts, token)


def list_tokens(session: CliSession) -> None:
    """List the tokens that were used or revoked, and have not expired."""
    with session.connect() as plane:
        answer = plane.pages("/tokens", "tokens", {})
    columns = (
        Column("token", lambda row: row["token_id"], whole=True),
        Column("subject", lambda row: row["subject"] or ""),
        Column("may", _rights),
        Column("clients", lambda row: "all" if row["clients"] is None else row["clients"]),
        Column("used", lambda row: moment(row["used_at"])),
        Column("from", lambda row: row["address"] or ""),
        Column("expires", lambda row: moment(row["expires_at"])),
        Column("revoked", lambda row: moment(row["revoked_at"])),
    )
    none = f"no token was used lately; `{session.step('token', 'create', '--help')}` shows how to make one"
    session.output.result(answer, Listing(columns, answer["tokens"]), none)


def show(session: CliSession, token: TokenId) -> None:
    """Show one token: what it may do, when it was used, whether it is revoked."""
    token_id = _id_of(token)
    with session.connect() as plane:
        answer = plane.call("GET", f"/tokens/{segment(token_id)}")
    session.output.result(answer, _view(answer))


def revoke(session: CliSession, token: TokenId) -> None:
    """Refuse a token from now on, and each browser that signed in with it."""
    token_id = _id_of(token)
    session.output.confirm(f"Revoke the token {token_id}?")
    with session.connect() as plane:
        answer = plane.call("POST", f"/tokens/{segment(token_id)}/revoke", repeatable=True)
    session.output.result(answer, _view(answer))


def _id_of(text: str) -> str:
    """The id that was typed, or that of the token on standard input, which is not sent anywhere."""
    if text != "-":
        if _TOKEN.fullmatch(text):
            hint = "every user of this machine can read an argument: send the token to standard input, with -"
            raise Misused(hint)
        return text
    token = secret_from(Path("-"), "") or ""
    try:
        claims = token.split(".")[1]
        token_id = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["jti"]
    except (IndexError, ValueError, KeyError, TypeError) as error:
        text = "standard input has no token with an id; one without an id ends by itself, or with JWT_SECRET"
        raise Misused(text) from error
    return str(token_id)


def _view(row: Row) -> str:
    who = visible(row["subject"]) if row["subject"] else "never used here"
    lines = [
        f"token {visible(row['token_id'])}: {who}",
        f"may: {_rights(row)}; clients: {'all' if row['clients'] is None else visible(row['clients'])}",
        f"used: {moment(row['used_at']) or 'never'} {visible(row['address'] or '')}".rstrip(),
        f"expires: {moment(row['expires_at'])}",
    ]
    if row["revoked_at"]:
        why = f": {visible(row['reason'])}" if row["reason"] else ""
        lines.append(f"revoked: {moment(row['revoked_at'])} by {visible(row['revoked_by'])}{why}")
    return "\n".join(lines)


def _rights(row: Row) -> str:
    return rights_of(row["scopes"]) if row["subject"] else ""


def rights_of(scopes: list[str]) -> str:
    """The scopes as a short text."""
    from control_plane.domain.access import ALL

    return "everything" if set(scopes) == ALL else " ".join(scopes) or "nothing"


def _principal(subject: str, scopes: list[str] | None, clients: str | None, token_id: str) -> "Principal":
    """The caller that the options describe; `Misused` for a scope or a selector that does not exist."""
    from control_plane.domain.access import ALL, Principal, Scope
    from control_plane.domain.errors import SelectorError

    words = [word for text in scopes or () for word in text.replace(",", " ").split()]
    if scopes and not words:
        text = "--scope: write a scope such as uploads:read; leave it out for everything"
        raise Misused(text)
    if wrong := sorted(set(words) - set(Scope)):
        text = f"--scope {wrong[0]}: there is no such scope: {' '.join(Scope)}"
        raise Misused(text)
    if clients is not None and not clients.strip():
        text = "--clients: write a selector such as site=berlin; leave it out for all clients"
        raise Misused(text)
    try:
        return Principal(subject, frozenset(map(Scope, words)) if words else ALL, clients, token_id)
    except SelectorError as error:
        text = f"--clients: {error}"
        raise Misused(text) from error


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
