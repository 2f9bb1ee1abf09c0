"""Accounts at a Mosquitto with the shipped access list: `backhaul broker enroll`.

Rule: a password is printed once and kept nowhere; what a name may do is `broker.access`'s business.
"""

from pathlib import Path
from typing import Annotated, Final

import typer

from broker import access
from broker.errors import BrokerError
from control_plane.cli.errors import Failed, Misused
from control_plane.cli.session import CliSession, Tree, local_command, new_app
from schemas.errors import SchemaError
from schemas.topics import DEFAULT_ROOT, Topics

DIRECTORY: Final = Path("/etc/mosquitto/backhaul")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A client id, or a name beginning with control-plane, operator- or cli-.")
]
Directory = Annotated[
    Path,
    typer.Option("--directory", "-d", envvar="BROKER_ACCESS", show_envvar=True, help="The folder of its two files."),
]
Replace = Annotated[bool, typer.Option("--replace", help="Give a new password to a name that has one.")]
Root = Annotated[str, typer.Option("--topic-root", envvar="TOPIC_ROOT", help="The topics of services.")]


def build() -> Tree:
    """The group `broker`."""
    app = new_app("Accounts at a Mosquitto with the shipped access list.")
    for name, function in (("enroll", enroll), ("revoke", revoke), ("accounts", accounts)):
        app.command(name)(local_command(function))
    return app


def enroll(
    session: CliSession,
    name: Name,
    *,
    directory: Directory = DIRECTORY,
    replace: Replace = False,
    topic_root: Root = DEFAULT_ROOT,
) -> None:
    """Make the account of a device or a service, and print its password once."""
    try:
        if access.is_service(name):
            given = access.enroll_service(directory, name, replace=replace, topics=Topics(topic_root))
        else:
            given = access.enroll(directory, name, replace=replace)
    except SchemaError as error:
        raise Misused(str(error)) from error
    except (BrokerError, OSError) as error:
        raise Failed(_explained(error)) from error
    document = {"MQTT_USERNAME": given.username, "MQTT_PASSWORD": given.password}
    session.output.result(document, "\n".join(f"{key}={value}" for key, value in document.items()))
    reloads = "one that `up` started reads it by itself"
    if replace:
        # Debian 12's version damages its memory at a reload after a new password (docs/limits.md).
        session.output.note(
            f"restart the broker to load it: Mosquitto 2.0.11 may crash where it only reloads; {reloads}"
        )
    else:
        session.output.note(f"the broker reads it at its next SIGHUP; {reloads}")


def revoke(
    session: CliSession, name: Name, *, directory: Directory = DIRECTORY, topic_root: Root = DEFAULT_ROOT
) -> None:
    """Remove an account."""
    try:
        access.revoke(directory, name, topics=Topics(topic_root))
    except (BrokerError, OSError) as error:
        raise Failed(_explained(error)) from error
    session.output.result({"revoked": name}, f"{name} is revoked")
    session.output.note(
        "the broker ends the connections of this account at its next SIGHUP; one that `up` started does so by itself"
    )


def accounts(session: CliSession, *, directory: Directory = DIRECTORY) -> None:
    """List the names that have an account."""
    try:
        names = access.accounts(directory)
    except OSError as error:
        raise Failed(_explained(error)) from error
    session.output.result({"accounts": list(names)}, "\n".join(names))


def _explained(error: Exception) -> str:
    if isinstance(error, BrokerError):
        return str(error)
    place = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return f"{place} (name the broker's directory with --directory)"
