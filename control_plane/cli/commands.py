"""The tree of commands.

Rule: a command's own module is imported when the tree is built, so none of them imports a server at its top.
"""

from typing import Final

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
from control_plane.cli.session import Tree, local_command, new_root, rest_command
from control_plane.cli.shell import completion, topics
from control_plane.cli.simulate import command as simulate
from control_plane.cli.site import page, up
from control_plane.cli.site.demo import command as demo
from control_plane.cli.top import command as top

_FLEET: Final = "The fleet, over REST"
_SHORT: Final = "Short forms"
_MACHINE: Final = "This machine"
_SHELL: Final = "The shell"


def build() -> Tree:
    """The whole command line."""
    app = new_root()
    uploads.register(app, _SHORT)
    clients.register(app, _SHORT)
    events.register(app, _FLEET)
    receipts.register(app, _FLEET)
    app.command("top", rich_help_panel=_FLEET)(rest_command(top.top))
    app.command("page", rich_help_panel=_FLEET)(rest_command(page.page))
    serve.register(app, _MACHINE)
    for name, function in (("up", up.up), ("demo", demo.demo), ("doctor", doctor.doctor)):
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
