"""The part that all commands share: `--json`, `--server`, `--token-file`, and how errors become exit codes.

Rule: a command is a function of a `CliSession`; the decorators here add the shared options and turn every error into
one line and an exit code. A shared option may be typed before or after the command's name: what is typed after it comes
first, then what is typed before it, then the environment.
"""

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Concatenate, Final, ParamSpec

import typer

from control_plane.cli.errors import BROKEN_PIPE, INTERRUPTED, CliError, Misused, missing_extra
from control_plane.cli.output import CliOutput
from control_plane.cli.rest.client import DEFAULT_SERVER, ControlPlane
from control_plane.cli.secret_files import secret_from
from control_plane.cli.streams import discard_stdout
from schemas.errors import SchemaError

P = ParamSpec("P")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
# Neither option has an `envvar`: typer would read it for the option after the command's name, and overrule with it what
# was typed before the name.
Server = Annotated[
    str | None, typer.Option("--server", help=f"The control plane. \\[env var: BACKHAUL_URL; {DEFAULT_SERVER}]")
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="Holds the bearer token; - is standard input. \\[env var: BACKHAUL_TOKEN]"),
]


@dataclass(frozen=True, slots=True)
class Given:
    """The shared options, as far as they were typed before the command's name."""

    as_json: bool = False
    server: str | None = None
    token_file: Path | None = None


class CliSession:
    """One run of one command."""

    def __init__(self, given: Given) -> None:
        self.output = CliOutput(as_json=given.as_json)
        self._given = given

    @property
    def server(self) -> str:
        """The URL of the control plane."""
        given = self._given.server
        return (os.environ.get("BACKHAUL_URL") or DEFAULT_SERVER) if given is None else given

    @property
    def token(self) -> str | None:
        """The bearer token, if one was given."""
        return secret_from(self._given.token_file, "BACKHAUL_TOKEN")

    def connect(self) -> ControlPlane:
        """A connection to the control plane, to be used as a context manager."""
        return ControlPlane(self.server, self.token)


def rest_command(function: Callable[Concatenate[CliSession, P], None]) -> Callable[..., None]:
    """A command that calls a control plane: it has `--server`, `--token-file` and `--json`."""
    return _command(function, _rest_options)


def local_command(function: Callable[Concatenate[CliSession, P], None]) -> Callable[..., None]:
    """A command that needs no control plane: it has `--json`."""
    return _command(function, _local_options)


def _rest_options(
    ctx: typer.Context, *, server: Server = None, token_file: TokenFile = None, as_json: AsJson = False
) -> Given:
    before = _before(ctx)
    return Given(
        as_json=as_json or before.as_json,
        server=before.server if server is None else server,
        token_file=token_file or before.token_file,
    )


def _local_options(ctx: typer.Context, *, as_json: AsJson = False) -> Given:
    before = _before(ctx)
    return replace(before, as_json=as_json or before.as_json)


def _before(ctx: typer.Context) -> Given:
    return ctx.obj if isinstance(ctx.obj, Given) else Given()


def _command(
    function: Callable[Concatenate[CliSession, P], None], options: Callable[..., Given]
) -> Callable[..., None]:
    """`function` behind the parameters of both, as typer reads them from the signature."""
    shared = inspect.signature(options).parameters
    own = list(inspect.signature(function).parameters.values())[1:]

    @functools.wraps(function)
    def command(**values: object) -> None:
        given = options(**{name: values.pop(name) for name in shared})
        _run(given, lambda session: function(session, **values))  # type: ignore[arg-type, call-arg]

    ctx, *rest = shared.values()
    parameters = sorted((ctx, *own, *rest), key=lambda parameter: parameter.kind)
    del command.__wrapped__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _run(given: Given, work: Callable[[CliSession], None]) -> None:
    session = CliSession(given)
    try:
        work(session)
    except CliError as error:
        session.output.error(error)
        raise typer.Exit(error.exit_code) from error
    except (SchemaError, UnicodeError) as error:
        # Input that no earlier check covers: a file size beyond the limits of S3, bytes that are not text.
        misused = Misused(_misuse(error))
        session.output.error(misused)
        raise typer.Exit(misused.exit_code) from error
    except ImportError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        session.output.error(missing)
        raise typer.Exit(missing.exit_code) from error
    except BrokenPipeError as error:
        discard_stdout()
        raise typer.Exit(BROKEN_PIPE) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error


def _misuse(error: SchemaError | UnicodeError) -> str:
    return f"something that was typed is no text: {error}" if isinstance(error, UnicodeError) else str(error)


def new_app(text: str) -> typer.Typer:
    """An empty command line; our own errors never reach typer."""
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


__all__: Final = ["AsJson", "CliSession", "Given", "Server", "TokenFile", "local_command", "new_app", "rest_command"]
