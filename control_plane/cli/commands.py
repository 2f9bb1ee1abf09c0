"""The tree of commands.

Rule: a command's own module is imported when the tree is built, so none of them imports a server at its top.
"""

from importlib.metadata import version
from typing import Annotated, Final

import typer

from control_plane.cli import accounts, doctor, serve
from control_plane.cli.conformance import command as conformance
from control_plane.cli.contexts import commands as contexts
from control_plane.cli.keys import commands as keys
from control_plane.cli.mqtt import commands as mqtt
from control_plane.cli.rest import budgets, clients, events, fleet, health, token, uploads, webhooks
from control_plane.cli.rest.audit import commands as audit
from control_plane.cli.rest.devices import commands as devices
from control_plane.cli.rest.jobs import commands as jobs
from control_plane.cli.rest.receipts import commands as receipts
from control_plane.cli.rest.schedules import commands as schedules
from control_plane.cli.session import (
    AsJson,
    Context,
    Given,
    NoInput,
    Quiet,
    Server,
    TokenFile,
    Tree,
    Yes,
    local_command,
    new_app,
    rest_command,
)
from control_plane.cli.shell import completion, topics
from control_plane.cli.simulate import command as simulate
from control_plane.cli.site import page, up
from control_plane.cli.site.demo import command as demo
from control_plane.cli.top import command as top

_FLEET: Final = "The fleet, over REST"
_SHORT: Final = "Short forms"
_MACHINE: Final = "This machine"
_SHELL: Final = "The shell"

_HELP: Final = """Command a fleet of devices behind NAT to upload chosen files to object storage.

`backhaul help exit-codes`, `help environment` and `help formatting` explain what all commands share.
"""


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        typer.echo(version("backhaul"))
        raise typer.Exit


ShowVersion = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


def build() -> Tree:
    """The whole command line."""
    app = new_app(_HELP)
    app.callback()(_root)
    uploads.register(app, _SHORT)
    clients.register(app, _SHORT)
    events.register(app, _FLEET)
    receipts.register(app, _FLEET)
    app.command("top", rich_help_panel=_FLEET)(rest_command(top.top))
    app.command("page", rich_help_panel=_FLEET)(rest_command(page.page))
    for name, function in (("serve", serve.serve), ("up", up.up), ("demo", demo.demo), ("doctor", doctor.doctor)):
        app.command(name, rich_help_panel=_MACHINE)(local_command(function))
    app.command("conformance", rich_help_panel=_MACHINE)(local_command(conformance.conformance))
    app.command("simulate", rich_help_panel=_MACHINE)(rest_command(simulate.simulate))
    for name, group, panel in (
        ("fleet", health.build_fleet(), _FLEET),
        ("upload", uploads.build(), _FLEET),
        ("client", fleet.build_client(), _FLEET),
        ("group", fleet.build_group(), _FLEET),
        ("job", jobs.build(), _FLEET),
        ("schedule", schedules.build(), _FLEET),
        ("budget", budgets.build(), _FLEET),
        ("webhook", webhooks.build(), _FLEET),
        ("keys", keys.build(), _FLEET),
        ("audit", audit.build(), _FLEET),
        ("device", devices.build(), _FLEET),
        ("health", health.build(), _FLEET),
        ("mqtt", mqtt.build(), "Without a control plane"),
        ("token", token.build(), _MACHINE),
        ("broker", accounts.build(), _MACHINE),
        ("context", contexts.build(), _SHELL),
    ):
        app.add_typer(group, name=name, rich_help_panel=panel)
    health.register(app, _SHELL)
    completion.register(app, _SHELL)
    topics.register(app, _SHELL)
    return app


def _root(  # noqa: PLR0913 - one for each option
    ctx: typer.Context,
    *,
    server: Server = None,
    token_file: TokenFile = None,
    context: Context = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    yes: Yes = False,
    no_input: NoInput = False,
    show_version: ShowVersion = False,  # noqa: ARG001 - its callback has answered
) -> None:
    ctx.obj = Given(
        as_json=as_json,
        server=server,
        token_file=token_file,
        context=context,
        quiet=quiet,
        yes=yes,
        no_input=no_input,
    )
