"""`backhaul mqtt`: uploads straight over MQTT, with the operator's own S3 credentials and no control plane.

Rule: parses and prints; `run`, `publish`, `print_command`, `signing`, `trusting` and `watch` do the work.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.formats import Shape
from control_plane.cli.layout import Column, Listing
from control_plane.cli.parsing import read_key_values, read_upload_options
from control_plane.cli.rest.answers.shapes import FILES, UPLOAD
from control_plane.cli.rest.arguments import After, Client, DevicePath, EncryptTo, Pattern, UploadId
from control_plane.cli.rest.client import Document
from control_plane.cli.rest.clients import Digest, Folders
from control_plane.cli.rest.progress import display_for
from control_plane.cli.rest.tables import files_table, upload_view
from control_plane.cli.rest.uploads import Metadata, Options
from control_plane.cli.session import CliSession, Tree, local_command, new_app
from control_plane.cli.text import duration, moment
from schemas.topics import require_client_id

if TYPE_CHECKING:
    from control_plane.cli.mqtt.publish import Addressed

State = Annotated[
    Path | None,
    typer.Option("--state", metavar="FILE", help=r"Keeps the upload. \[~/.local/state/backhaul/UPLOAD.json]"),
]
GiveUp = Annotated[str | None, typer.Option("--deadline", metavar="TIME", help=r"Give up after: 2h, 7d. \[7d]")]
Print = Annotated[
    bool, typer.Option("--print", help="Print a command that is granted already, to be published by hand.")
]
AskControlPlane = Annotated[
    bool, typer.Option("--ask-control-plane", help="Publish the bare command; a control plane does the rest.")
]
FileSize = Annotated[
    int | None,
    typer.Option("--size", min=0, metavar="BYTES", help="With --print: the file's size. \\[requested of the agent]"),
]


TrustFirst = Annotated[
    bool, typer.Option("--trust-first", help="Pin the device's key if none is pinned yet, without comparing it.")
]
Fingerprint = Annotated[
    str | None,
    typer.Option("--fingerprint", metavar="HEX", help="Pin the key that has this one, as `device show` has it."),
]
Remove = Annotated[bool, typer.Option("--remove", help="Pin no key of this client any more.")]
CommandFile = Annotated[Path, typer.Argument(metavar="FILE", help="A command in JSON; - is standard input.")]
SignedOut = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help=r"The file to publish. \[FILE with .signed.json at its end]"),
]
WatchedClient = Annotated[str | None, typer.Argument(metavar="[CLIENT]", help="Of this client only.")]
TRUSTED = Shape("client_id", ("client_id", "fingerprint", "public_key", "pinned_at"), "devices")
PUBLISHED = Shape("upload_id", ("upload_id", "topic", "command"))


def build() -> Tree:
    """The group `mqtt`."""
    app = new_app("Straight over MQTT: no control plane, your own S3 credentials (MQTT_URL, AWS_…, S3_BUCKET_NAME).")
    for name, function, shape in (
        ("trigger", trigger, UPLOAD),
        ("resume", resume, UPLOAD),
        ("watch", watch, None),
        ("files", files, FILES),
        ("cancel", cancel, None),
        ("trust", trust, TRUSTED),
        ("sign", sign, None),
    ):
        app.command(name)(local_command(function, shape))
    return app


def trigger(  # noqa: PLR0913 - each parameter is an option that a person types
    session: CliSession,
    client: Client,
    path: DevicePath = None,
    *,
    metadata: Metadata = None,
    option: Options = None,
    deadline: GiveUp = None,
    after: After = None,
    encrypt_to: EncryptTo = None,
    state: State = None,
    print_: Print = False,
    ask_control_plane: AskControlPlane = False,
    file_size: FileSize = None,
    trust_first: TrustFirst = False,
) -> None:
    """Upload a file and stay until it is proven; Ctrl-C cancels, and `mqtt resume` continues after a kill."""
    # Behind the command: the engine takes half a second to import.
    from control_plane.cli.mqtt import print_command, publish, request, run

    wanted = request.read_request(
        client,
        path,
        metadata=read_key_values(metadata or ()),
        options=read_upload_options(option, encrypt_to),
        deadline=_seconds(deadline),
        after=after,
    )
    if print_ and after is not None:
        text = "--after needs an owner that stays until the proof: leave out --print"
        raise Misused(text)
    if print_ and wanted.options.encrypt_to:
        text = "--encrypt-to needs an owner that learns the digest of each part first: leave out --print"
        raise Misused(text)
    if print_ and ask_control_plane:
        text = "--print and --ask-control-plane are two ways: choose one"
        raise Misused(text)
    if print_:
        command = asyncio.run(
            print_command.granted_command(session.output, wanted, state, file_size, trust_first=trust_first)
        )
        session.output.document(command)
        return
    if ask_control_plane:
        command = asyncio.run(publish.publish_download(wanted, _addressed(session, client, trust_first=trust_first)))
        step = session.step("upload", "show", about=[wanted.upload_id])
        session.output.result(command, f"published; `{step}` shows it, if a control plane listens", shape=PUBLISHED)
        return
    with display_for(session.output) as display:
        ended = asyncio.run(run.trigger(session.output, display, wanted, state, trust_first=trust_first))
    _finish(session, ended)


def resume(session: CliSession, upload_id: UploadId, *, state: State = None, trust_first: TrustFirst = False) -> None:
    """Continue an upload after its command was killed, or a printed one."""
    from control_plane.cli.mqtt import run

    with display_for(session.output) as display:
        ended = asyncio.run(run.resume(session.output, display, upload_id, state, trust_first=trust_first))
    _finish(session, ended)


def files(
    session: CliSession,
    client: Client,
    pattern: Pattern = "/**",
    *,
    digest: Digest = False,
    folders: Folders = False,
    trust_first: TrustFirst = False,
) -> None:
    """List files on a device that match a pattern, below its allowed roots."""
    from control_plane.cli.mqtt import publish

    to = _addressed(session, client, trust_first=trust_first)
    answer = asyncio.run(publish.list_files(to, pattern, digest=digest, folders=folders))
    session.output.result(answer, files_table(answer["files"]), "no files: nothing below the client's roots matches")


def watch(session: CliSession, client: WatchedClient = None) -> None:
    """Print every message of the fleet, or of one client, until Ctrl-C. With --json: a document on a line for each."""
    from control_plane.cli.mqtt import watch as mqtt_watch

    asyncio.run(mqtt_watch.watch(session.output, client))


def cancel(
    session: CliSession,
    upload_id: UploadId,
    *,
    client: Annotated[
        str | None, typer.Option("--client", "-c", metavar="CLIENT", help="The client, for another owner's upload.")
    ] = None,
    state: State = None,
    trust_first: TrustFirst = False,
) -> None:
    """End an upload: ours with all it left at the store; with --client another owner's, which then cleans up."""
    from control_plane.cli.mqtt import publish, run

    if client is not None:
        to = _addressed(session, client, trust_first=trust_first)
        answer = asyncio.run(publish.publish_cancel(to, upload_id))
        session.output.result(answer, f"{client} answers: {answer['status']}")
        return
    with display_for(session.output) as display:
        resumed = run.resume(session.output, display, upload_id, state, cancel=True, trust_first=trust_first)
        ended = asyncio.run(resumed)
    session.output.result(ended, upload_view(ended))
    if ended["status"] != "cancelled":
        raise typer.Exit(Failed.exit_code)


def trust(
    session: CliSession,
    client: Annotated[str | None, typer.Argument(metavar="[CLIENT]", help="This client only.")] = None,
    *,
    fingerprint: Fingerprint = None,
    remove: Remove = False,
) -> None:
    """List the keys of devices that are pinned here, pin one, or remove one."""
    from control_plane.cli.mqtt import trusting

    if client is None and (fingerprint is not None or remove):
        text = "name the client whose key is meant"
        raise Misused(text)
    if fingerprint is not None and remove:
        text = "--fingerprint and --remove are two ways: choose one"
        raise Misused(text)
    keys = trusting.known_keys()
    if client is not None:
        require_client_id(client)
        if fingerprint is not None:
            asyncio.run(trusting.pin(client, fingerprint))
        elif keys.of_client(client) is None:
            step = session.step("mqtt", "trust", "--fingerprint", "HEX", about=[client])
            text = f"no key of {client} is pinned: `{step}`"
            raise Misused(text)
        if remove:
            session.output.confirm(f"Remove the pinned key of {client}?")
            keys.remove(client)
    rows = [trusting.row_of(one) for one in keys.all() if client in (None, one.client_id)]
    columns = (
        Column("client", lambda row: row["client_id"], whole=True),
        Column("fingerprint", lambda row: row["fingerprint"], whole=True),
        Column("pinned", lambda row: moment(row["pinned_at"])),
    )
    none = f"no keys of devices are pinned in {keys.place}"
    session.output.result({"devices": rows}, Listing(columns, rows), none)


def sign(
    session: CliSession,
    client: Client,
    command: CommandFile,
    *,
    out: SignedOut = None,
    trust_first: TrustFirst = False,
) -> None:
    """Sign a command for the present session of its device; prints the arguments with which mosquitto_pub sends it."""
    from control_plane.cli.mqtt import signing

    signed = asyncio.run(signing.signed_file(_addressed(session, client, trust_first=trust_first), command, out))
    session.output.result(signed.document(), signed.line)


def _addressed(session: CliSession, client: str, *, trust_first: bool) -> "Addressed":
    # Behind the command, as above.
    from control_plane.cli.mqtt.publish import Addressed

    return Addressed(client, trust_first, session.output.note)


def _finish(session: CliSession, ended: Document) -> None:
    session.output.result(ended, upload_view(ended))
    if ended["status"] != "completed":
        raise typer.Exit(Failed.exit_code)


def _seconds(text: str | None) -> float | None:
    seconds = duration(text) if text is not None else None
    if text is not None and not seconds:
        message = f"--deadline {text!r} is no time: write 2h or 7d"
        raise Misused(message)
    return seconds
