"""The tree of commands.

Rule: a command's own module is imported when the tree is built, so none of them imports a server at its top.
"""

from importlib.metadata import version
from typing import Annotated

import typer

from control_plane.cli import accounts, doctor, serve
from control_plane.cli.conformance import command as conformance
from control_plane.cli.mqtt import commands as mqtt
from control_plane.cli.rest import budgets, clients, events, fleet, token, uploads, webhooks
from control_plane.cli.rest.jobs import commands as jobs
from control_plane.cli.rest.schedules import commands as schedules
from control_plane.cli.session import AsJson, Given, Server, TokenFile, local_command, new_app, rest_command
from control_plane.cli.simulate import command as simulate
from control_plane.cli.site import up
from control_plane.cli.site.demo import command as demo

_HELP = "Command a fleet of devices behind NAT to upload chosen files to object storage."


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        typer.echo(version("backhaul"))
        raise typer.Exit


ShowVersion = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


def build() -> typer.Typer:
    """The whole command line."""
    app = new_app(_HELP)
    app.callback()(_root)
    uploads.register(app)
    events.register(app)
    clients.register(app)
    for name, function in (("serve", serve.serve), ("up", up.up), ("demo", demo.demo), ("doctor", doctor.doctor)):
        app.command(name)(local_command(function))
    app.command("conformance")(local_command(conformance.conformance))
    app.command("simulate")(rest_command(simulate.simulate))
    app.add_typer(fleet.build_client(), name="client")
    app.add_typer(fleet.build_group(), name="group")
    app.add_typer(jobs.build(), name="job")
    app.add_typer(schedules.build(), name="schedule")
    app.add_typer(budgets.build(), name="budget")
    app.add_typer(webhooks.build(), name="webhook")
    app.add_typer(mqtt.build(), name="mqtt")
    app.add_typer(token.build(), name="token")
    app.add_typer(accounts.build(), name="broker")
    return app


def _root(
    ctx: typer.Context,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    show_version: ShowVersion = False,  # noqa: ARG001 - its callback has answered
) -> None:
    ctx.obj = Given(as_json=as_json, server=server, token_file=token_file)
