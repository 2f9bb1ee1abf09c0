"""The part that all commands share: the control plane, the form of the result, and how errors become exit codes.

Rule: a command is a function of a `CliSession`; the decorators here add the shared options and turn every error into
one line and an exit code. A shared option may be typed before or after the command's name: what is typed after it comes
first, then what is typed before it, then the environment, then the context.
"""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Final, ParamSpec, Self

import typer
from typer.core import TyperCommand, TyperGroup

from control_plane.cli.contexts.store import DEFAULT_SERVER, Target, target_of
from control_plane.cli.errors import BROKEN_PIPE, INTERRUPTED, CliError, Misused, missing_extra
from control_plane.cli.formats import ALL_FIELDS, Form, FormChoice, Shape
from control_plane.cli.output import CliOutput
from control_plane.cli.program import command_line
from control_plane.cli.secret_files import secret_from
from control_plane.cli.streams import discard_stdout
from schemas.errors import SchemaError

if TYPE_CHECKING:
    from control_plane.cli.rest.client import ControlPlane

P = ParamSpec("P")

_OUTPUT: Final = "Output"
_CONNECTION: Final = "Control plane"

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output.", rich_help_panel=_OUTPUT)
]
Output = Annotated[
    Form | None,
    typer.Option("--output", "-o", help="The form of the result.", rich_help_panel=_OUTPUT, case_sensitive=False),
]
LongOutput = Annotated[
    Form | None,
    typer.Option("--output", help="The form of the result.", rich_help_panel=_OUTPUT, case_sensitive=False),
]
Fields = Annotated[
    str | None,
    typer.Option("--fields", metavar="A,B", help="Only these members of each row; alone: list them.",
                 rich_help_panel=_OUTPUT),
]  # fmt: skip
Query = Annotated[
    str | None,
    typer.Option(metavar="JMESPATH", help="Print what this expression finds in the result.", rich_help_panel=_OUTPUT),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print the result and errors, nothing else.", rich_help_panel=_OUTPUT)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer every question with yes.", rich_help_panel=_OUTPUT)]
NoInput = Annotated[
    bool,
    typer.Option("--no-input", help="Ask nothing; what needs an answer ends with 2.", rich_help_panel=_OUTPUT),
]
# No shared option has an `envvar`: typer would read it for the option after the command's name, and overrule with it
# what was typed before the name.
Server = Annotated[
    str | None,
    typer.Option("--server", help=f"Its URL. \\[env var: BACKHAUL_URL; {DEFAULT_SERVER}]", rich_help_panel=_CONNECTION),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="Holds the bearer token; - is standard input. \\[env var: BACKHAUL_TOKEN]",
                 rich_help_panel=_CONNECTION),
]  # fmt: skip
Context = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="One that `context add` made. \\[env var: BACKHAUL_CONTEXT]",
                 rich_help_panel=_CONNECTION),
]  # fmt: skip
Why = Annotated[
    str | None,
    typer.Option("--why", metavar="TEXT", help="Why it is done, for the audit. \\[env var: BACKHAUL_WHY]",
                 rich_help_panel=_CONNECTION),
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The shared options, as far as they were typed."""

    as_json: bool = False
    output: Form | None = None
    fields: str | None = None
    query: str | None = None
    quiet: bool = False
    yes: bool = False
    no_input: bool = False
    server: str | None = None
    token_file: Path | None = None
    context: str | None = None
    why: str | None = None

    def after(self, before: Self) -> "Given":
        """Both, where what is in `before` was typed earlier on the line."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        return Given(
            **{name: getattr(before, name) if value in (None, False) else value for name, value in own.items()}
        )

    @property
    def choice(self) -> FormChoice:
        """What was typed about the form of the result; `Misused` for two forms."""
        if self.as_json and self.output not in (None, Form.JSON):
            text = f"--json and --output {self.output} are two forms: give one of them"
            raise Misused(text)
        return FormChoice(Form.JSON if self.as_json else self.output, self.fields, self.query)


class CliSession:
    """One run of one command."""

    def __init__(self, given: Given | None = None, shape: Shape | None = None) -> None:
        self._given = given = given or Given()
        self.output = CliOutput(given.choice, shape, quiet=given.quiet, asks=not given.no_input, agreed=given.yes)

    @functools.cached_property
    def target(self) -> Target:
        """The control plane that is meant: what is typed, then the environment, then the context."""
        given = self._given
        typed = None if given.token_file is None else secret_from(given.token_file, "BACKHAUL_TOKEN")
        return target_of(server=given.server, token=typed, context=given.context)

    @property
    def context(self) -> str | None:
        """The context that was typed."""
        return self._given.context

    @property
    def server(self) -> str:
        """The URL of the control plane."""
        return self.target.server

    @property
    def token(self) -> str | None:
        """The bearer token, if one was given."""
        return self.target.token

    def connect(self) -> "ControlPlane":
        """A connection to the control plane, to be used as a context manager."""
        # Not at the top: a server, and what stays on this machine, need no HTTP client.
        from control_plane.cli.rest.client import ControlPlane

        why = self._given.why or os.environ.get("BACKHAUL_WHY")
        return ControlPlane(self.server, self.token, why)

    def step(self, *words: str, about: Sequence[str] = ()) -> str:
        """The command line that a person types next, for the shell of this command: it reaches the same place.

        `words` are its verbs and options, `about` its arguments, as of `command_line`.
        """
        given = self._given
        where = {"--context": given.context, "--server": given.server, "--token-file": given.token_file}
        typed = [part for name, value in where.items() if value is not None for part in (name, str(value))]
        return command_line(*words, *typed, about=about)


def rest_command(
    function: Callable[Concatenate[CliSession, P], None], shape: Shape | None = None
) -> Callable[..., None]:
    """A command that calls a control plane. `shape` is how its answer is rows, if it is."""
    return _command(function, _rest_options, shape)


def local_command(
    function: Callable[Concatenate[CliSession, P], None], shape: Shape | None = None
) -> Callable[..., None]:
    """A command that needs no control plane."""
    return _command(function, _local_options, shape)


def _rest_options(  # noqa: PLR0913 - one for each option
    *,
    as_json: AsJson = False,
    output: Output = None,
    fields: Fields = None,
    query: Query = None,
    quiet: Quiet = False,
    yes: Yes = False,
    no_input: NoInput = False,
    server: Server = None,
    token_file: TokenFile = None,
    context: Context = None,
    why: Why = None,
) -> Given:
    return Given(
        as_json=as_json,
        output=output,
        fields=fields,
        query=query,
        quiet=quiet,
        yes=yes,
        no_input=no_input,
        server=server,
        token_file=token_file,
        context=context,
        why=why,
    )


def _local_options(
    *,
    as_json: AsJson = False,
    output: Output = None,
    fields: Fields = None,
    query: Query = None,
    quiet: Quiet = False,
    yes: Yes = False,
    no_input: NoInput = False,
) -> Given:
    return _rest_options(
        as_json=as_json, output=output, fields=fields, query=query, quiet=quiet, yes=yes, no_input=no_input
    )


def _before(ctx: typer.Context) -> Given:
    return ctx.obj if isinstance(ctx.obj, Given) else Given()


def _command(
    function: Callable[Concatenate[CliSession, P], None], options: Callable[..., Given], shape: Shape | None
) -> Callable[..., None]:
    """`function` behind the parameters of both, as typer reads them from the signature."""
    shared = inspect.signature(options).parameters
    own = list(inspect.signature(function).parameters.values())[1:]
    if shape is None:
        shared_options = [one for name, one in shared.items() if name not in ("output", "fields")]
    else:
        shared_options = list(shared.values())
    if any("-o" in _declared(one) for one in own):
        # A command with --option has no short form of --output.
        shared_options = [one.replace(annotation=LongOutput) if one.name == "output" else one for one in shared_options]

    @functools.wraps(function)
    def command(ctx: typer.Context, **values: object) -> None:
        typed: dict[str, Any] = {one.name: values.pop(one.name) for one in shared_options}
        _run(
            lambda: options(**typed).after(_before(ctx)),
            shape,
            lambda session: function(session, **values),  # type: ignore[arg-type, call-arg]
        )

    ctx = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = sorted((ctx, *own, *shared_options), key=lambda parameter: parameter.kind)
    del command.__wrapped__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _declared(parameter: inspect.Parameter) -> tuple[str, ...]:
    """The names of an option, as its annotation declares them."""
    metadata = getattr(parameter.annotation, "__metadata__", ())
    return tuple(name for one in metadata for name in getattr(one, "param_decls", None) or ())


def _run(given: Callable[[], Given], shape: Shape | None, work: Callable[[CliSession], None]) -> None:
    output = CliOutput()
    try:
        session = CliSession(given(), shape)
        output = session.output
        if output.list_fields():
            return
        output.require_form()
        work(session)
    except CliError as error:
        output.error(error)
        raise typer.Exit(error.exit_code) from error
    except (SchemaError, UnicodeError) as error:
        # Input that no earlier check covers: a file size beyond the limits of S3, bytes that are not text.
        misused = Misused(_misuse(error))
        output.error(misused)
        raise typer.Exit(misused.exit_code) from error
    except ImportError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        output.error(missing)
        raise typer.Exit(missing.exit_code) from error
    except BrokenPipeError as error:
        discard_stdout()
        raise typer.Exit(BROKEN_PIPE) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error


def _misuse(error: SchemaError | UnicodeError) -> str:
    return f"something that was typed is no text: {error}" if isinstance(error, UnicodeError) else str(error)


class _Command(TyperCommand):
    """A command that takes `--fields` also without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own click
        """The arguments after the command's name."""
        return super().parse_args(ctx, _with_lone_fields(args))


def _with_lone_fields(args: list[str]) -> list[str]:
    """`--fields` without a value gets the one that lists them."""
    lone = [at for at, word in enumerate(args) if word == "--fields" and (args[at + 1 : at + 2] or ["-"])[0][:1] == "-"]
    for at in lone:
        args = [*args[:at], f"--fields={ALL_FIELDS}", *args[at + 1 :]]
    return args


class VerbOrId(TyperGroup):
    """A group that takes an id in place of a verb: then it shows the thing of this id."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own click
        """The arguments after the group's name."""
        verb = not args or args[0] in self.commands or args[0] in ctx.help_option_names
        return super().parse_args(ctx, args if verb else ["show", *args])


class Tree(typer.Typer):
    """A tree of commands; each of them takes the shared options."""

    def command(self, name: str | None = None, **options: Any) -> Any:  # noqa: ANN401 - as typer's
        """As `typer.Typer.command`."""
        return super().command(name, **{"cls": _Command, **options})


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        typer.echo(version("backhaul"))
        raise typer.Exit


_ShowVersion = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


def new_root() -> Tree:
    """The command line with the options of all commands, and without any command yet."""
    app = new_app(inspect.cleandoc(_root.__doc__ or ""))
    app.callback()(_root)
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
    show_version: _ShowVersion = False,  # noqa: ARG001 - its callback has answered
) -> None:
    """Command a fleet of devices behind NAT to upload chosen files to object storage.

    `backhaul help exit-codes`, `help environment` and `help formatting` explain what all commands share.
    """
    ctx.obj = Given(
        as_json=as_json,
        server=server,
        token_file=token_file,
        context=context,
        quiet=quiet,
        yes=yes,
        no_input=no_input,
    )


def new_app(text: str, cls: type[TyperGroup] = TyperGroup) -> Tree:
    """An empty command line; our own errors never reach typer."""
    return Tree(
        help=text,
        cls=cls,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


__all__: Final = [
    "AsJson",
    "CliSession",
    "Context",
    "Given",
    "NoInput",
    "Quiet",
    "Server",
    "TokenFile",
    "Tree",
    "VerbOrId",
    "Yes",
    "local_command",
    "new_app",
    "rest_command",
]
