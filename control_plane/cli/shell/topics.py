"""`backhaul help`: a command's help, and topics that no command has.

Rule: a topic that lists something reads it from where it is defined.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from control_plane.cli.contexts.store import DEFAULT_SERVER, config_file
from control_plane.cli.errors import EXIT_CODES, Misused
from control_plane.cli.layout import facts
from control_plane.cli.session import CliSession, Tree, local_command
from control_plane.cli.text import visible

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TOPIC|COMMAND...]", help="exit-codes, environment, formatting, or a command."),
]

ENVIRONMENT: Final = {
    "BACKHAUL_URL": f"the control plane; else that of the context, else {DEFAULT_SERVER}",
    "BACKHAUL_TOKEN": "the bearer token; a file (--token-file) or a context keeps it out of the environment",
    "BACKHAUL_CONTEXT": "the context that is used, in place of the one that `context use` chose",
    "XDG_CONFIG_HOME": "the folder of backhaul/config.toml, which has the contexts; else ~/.config",
    "XDG_DATA_HOME": "the folder of backhaul/, where `up` and `serve` keep their data; else ~/.local/share",
    "XDG_STATE_HOME": "the folder of backhaul/, where `mqtt` keeps unfinished uploads; else ~/.local/state",
    "SSL_CERT_FILE": "certificate authorities that are trusted in place of the usual ones",
    "HTTPS_PROXY, HTTP_PROXY, NO_PROXY": "proxies, for control planes beyond this machine",
    "NO_COLOR": "not empty: no colours (https://no-color.org)",
    "CLICOLOR_FORCE, FORCE_COLOR": "not 0: colours in a pipe, too",
    "CLICOLOR": "0: no colours",
    "TERM": "dumb: nothing moves, and nothing is coloured",
    "COLUMNS": "the width of the terminal, where it is not known",
    "MQTT_URL, AWS_…, S3_BUCKET_NAME": "for `mqtt` only: the broker and the object store, as for the control plane",
    "OPERATOR_KEY_FILE": "for `mqtt` and `trigger --sign`: the file of your key, with which commands are signed",
    "DEVICE_KEYS_FILE": "for the same: the keys of devices that you know; else ~/.config/backhaul/device-keys.json",
    "JWT_SECRET": "for `token create` only: the secret of the control plane",
    "BROKER_ACCESS": "for `broker` only: the folder of the broker's accounts",
}
"""Every variable that the command line reads."""

_ORDER: Final = "What is typed comes before the environment, the environment before the context."

_FORMATTING: Final = """\
--json, -o json   one document as REST answers it: a contract for programs
-o table          for people, and the form without an option; narrow terminals get a block for each row
-o wide           the same with more columns
-o jsonl          one JSON object a line, for each row
-o csv            a head, then a line for each row; what is no text or number is JSON in its cell
-o name           the id of each row, for `xargs` and `$(…)`
--fields a,b      only these members of each row, in any form; --fields alone lists the members
--query EXPR      what the JMESPath expression finds in the JSON document; texts are printed as they are
-q, --quiet       the result and errors, without hints and progress
--watch           shown again at each change: a table that moves on a terminal, JSON lines in a pipe

backhaul upload list --state rejected -o name | xargs -n 1 backhaul upload retry
backhaul client list -l site=berlin --fields client_id,last_activity -o csv
backhaul upload list --query 'uploads[?file_size > `1000000`].[client_id, file_path]' -o csv
backhaul job executions nightly --state failed --watch -o jsonl

Results go to standard output, everything else to standard error."""


def register(app: Tree, panel: str) -> None:
    """Add the command of this module."""
    app.command("help", rich_help_panel=panel)(local_command(_help_of(app)))


def _help_of(app: Tree) -> Callable[..., None]:
    def help_(session: CliSession, words: Words = None) -> None:
        """Show the help of a command, or of a topic: exit-codes, environment, formatting."""
        given = words or []
        if len(given) == 1 and given[0] in TOPICS:
            document, view = TOPICS[given[0]]()
            session.output.result(document, view)
            return
        session.output.text(_command_help(app, given))

    return help_


def _command_help(app: Tree, words: list[str]) -> str:
    level: Any = typer.main.get_command(app)
    context: Any = level.make_context("backhaul", [], resilient_parsing=True)
    for word in words:
        found = getattr(level, "commands", {}).get(word)
        if found is None:
            topics = ", ".join(TOPICS)
            text = f"there is no command {visible(' '.join(words))!r}, and no such topic: there are {topics}"
            raise Misused(text)
        level = found
        context = level.make_context(word, [], parent=context, resilient_parsing=True)
    # typer draws the help itself where rich is there; what it returns is what is left to print.
    shown: str = context.get_help()
    return f"{shown}\n" if shown else ""


def _exit_codes() -> tuple[object, Any]:
    rows = {str(code): text for code, text in EXIT_CODES.items()}
    return rows, facts(*rows.items())


def _environment() -> tuple[object, Any]:
    from rich.console import Group

    head = f"{_ORDER}\nContexts are kept in {visible(config_file())}."
    return dict(ENVIRONMENT), Group(head, "", facts(*ENVIRONMENT.items()))


def _formatting() -> tuple[object, Any]:
    return {"formatting": _FORMATTING.splitlines()}, _FORMATTING


TOPICS: Final[dict[str, Callable[[], tuple[object, Any]]]] = {
    "exit-codes": _exit_codes,
    "environment": _environment,
    "formatting": _formatting,
}
