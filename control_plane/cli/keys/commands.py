"""`backhaul keys`: make the root of trust, list keys, publish the list.

Rule: standard output never has a private key. A passphrase is typed or read from a file, never an argument.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from msgspec.structs import replace

from control_plane.cli.errors import Misused
from control_plane.cli.keys import folder as folders
from control_plane.cli.keys.folder import KeyFolder, kid_of, list_of, root_of
from control_plane.cli.layout import Column, Listing, Row, facts
from control_plane.cli.rest.answers.shapes import KEYS
from control_plane.cli.secret_files import secret_from
from control_plane.cli.session import CliSession, Tree, local_command, new_app, rest_command
from control_plane.cli.text import duration, moment, visible
from schemas.errors import SchemaError
from schemas.globs import Globs
from schemas.signing.canonical import KID
from schemas.signing.documents import KeyEntry, KeyList, KeyRole, TrustDocument
from schemas.signing.ed25519 import Signer, Verifier
from schemas.signing.key_files import KeyFileError, create_key, needs_passphrase, read_key
from schemas.signing.trust import root_digest
from schemas.topics import CONTROL_PLANE, DEFAULT_ROOT, Topics

_DAY: Final = 86_400
_KEY_LIFE: Final = 730
_LONGEST: Final = 36_500.0 * _DAY
"""Seconds: the longest life of a key, or of a list, beside no end at all."""
_OF_OPERATORS: Final = ("cli-*",)
_EVERYTHING: Final = ("/**",)

Folder = Annotated[
    Path | None, typer.Option("--folder", metavar="DIR", help=r"The folder of the keys. \[~/.config/backhaul/keys]")
]
TopicRoot = Annotated[str, typer.Option("--topic-root", envvar="TOPIC_ROOT", help="The fleet that the keys are for.")]
RootKey = Annotated[
    list[Path] | None, typer.Option("--root-key", metavar="FILE", help=r"Signs; repeatable. \[root.json of the folder]")
]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", metavar="FILE", help=r"The passphrase; - is stdin. \[typed]")
]
Principal = Annotated[str, typer.Argument(metavar="NAME", help="In whose name the key signs.")]
PublicKey = Annotated[
    str | None, typer.Option("--public-key", metavar="KEY", help="43 characters, as `keys show` has it.")
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", metavar="FILE", help="A file with the private key.")]
OfPlane = Annotated[bool, typer.Option("--control-plane", help="The key with which the control plane signs now.")]
Roles = Annotated[list[KeyRole] | None, typer.Option("--role", help=r"What it may sign; repeatable. \[both]")]
Paths = Annotated[list[str] | None, typer.Option("--path", metavar="GLOB", help=r"For which files. \[/**]")]
Owners = Annotated[list[str] | None, typer.Option("--owner", metavar="NAME", help="For uploads of which owners.")]
Life = Annotated[str, typer.Option("--life", metavar="TIME", help="How long agents obey it: 730d, or 0 for ever.")]
ListLife = Annotated[
    str | None,
    typer.Option("--list-life", metavar="TIME", help=r"How long the list counts: 90d, or 0. \[as the list before]"),
]
Kid = Annotated[str, typer.Argument(metavar="KID", help="The name of a key: ed25519:…")]
Threshold = Annotated[int, typer.Option("--threshold", min=1, max=2, help="How many of both root keys must sign.")]


def build() -> Tree:
    """The group `keys`."""
    app = new_app("The keys that agents obey, and the root of trust that signs their list.")
    for name, function in (
        ("init", init),
        ("add", add),
        ("add-operator", add_operator),
        ("list", list_keys),
        ("show", show),
        ("revoke", revoke),
        ("rotate-root", rotate_root),
        ("sign", sign),
    ):
        app.command(name)(local_command(function))
    app.command("publish")(rest_command(publish, KEYS))
    app.command("published")(rest_command(published, KEYS))
    return app


def init(
    session: CliSession,
    *,
    folder: Folder = None,
    topic_root: TopicRoot = DEFAULT_ROOT,
    passphrase_file: PassphraseFile = None,
    threshold: Threshold = 1,
) -> None:
    """Make the root of trust of a fleet: one key under a passphrase, one for the safe, and an empty list."""
    keys = _folder(folder, topic_root)
    if keys.document.exists():
        text = f"{keys.document} exists: a fleet has one root of trust"
        raise Misused(text)
    passphrase = _passphrase(passphrase_file, "Passphrase of the root key", new=True)
    try:
        keys.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        signers = [create_key(keys.path / folders.ROOT_KEY, passphrase), create_key(keys.path / folders.SAFE_KEY)]
    except OSError as error:
        text = f"{error.filename or keys.path}: {error.strerror}"
        raise Misused(text) from error
    document = keys.begin(signers, threshold)
    made = {
        "folder": str(keys.path),
        "root_sha256": root_digest(document.roots[0]),
        "root_keys": [signer.kid for signer in signers],
    }
    session.output.result(made, facts(("folder", made["folder"]), ("root SHA-256", made["root_sha256"])))
    session.output.note(f"move {keys.path / folders.SAFE_KEY} to a safe now: it has no passphrase")
    session.output.note(f"next: `{session.step('keys', 'add', CONTROL_PLANE, '--control-plane')}`")


def add(  # noqa: PLR0913 - each parameter is an option that a person types
    session: CliSession,
    principal: Principal,
    *,
    public_key: PublicKey = None,
    key_file: KeyFile = None,
    control_plane: OfPlane = False,
    role: Roles = None,
    path: Paths = None,
    owner: Owners = None,
    life: Life = f"{_KEY_LIFE}d",
    list_life: ListLife = None,
    folder: Folder = None,
    topic_root: TopicRoot = DEFAULT_ROOT,
    root_key: RootKey = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """List a key: the control plane's, or any other. The same key again replaces its entry."""
    if [public_key is not None, key_file is not None, control_plane].count(True) != 1:
        text = "name one key: --public-key, --key-file or --control-plane"
        raise Misused(text)
    keys = _folder(folder, topic_root)
    keys.read()
    if control_plane:
        with session.connect() as plane:
            public_key = str(plane.call("GET", "/keys")["public_key"])
    elif key_file is not None:
        public_key = _signer(key_file, None).verifier.text
    entry = _entry(str(public_key), principal, role, path, owner or [CONTROL_PLANE], _life("--life", life))
    seconds = _list_life(list_life)
    _listed(session, keys, entry, _signers(keys, root_key, passphrase_file), seconds)


def add_operator(  # noqa: PLR0913 - as above
    session: CliSession,
    name: Principal,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The new file with the operator's key.")],
    role: Roles = None,
    path: Paths = None,
    life: Life = f"{_KEY_LIFE}d",
    list_life: ListLife = None,
    folder: Folder = None,
    topic_root: TopicRoot = DEFAULT_ROOT,
    root_key: RootKey = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make the key of an operator, for `backhaul mqtt` (OPERATOR_KEY_FILE), and list it."""
    keys = _folder(folder, topic_root)
    keys.read()
    seconds, of_list = _life("--life", life), _list_life(list_life)
    signers = _signers(keys, root_key, passphrase_file)
    try:
        signer = create_key(out)
    except OSError as error:
        text = f"{out}: {error.strerror}"
        raise Misused(text) from error
    entry = _entry(signer.verifier.text, name, role, path, list(_OF_OPERATORS), seconds)
    _listed(session, keys, entry, signers, of_list)


def list_keys(session: CliSession, *, folder: Folder = None, topic_root: TopicRoot = DEFAULT_ROOT) -> None:
    """List the keys of the folder, published or not."""
    keys = _folder(folder, topic_root)
    document = keys.read()
    listed = list_of(document)
    rows = [_row(entry) for entry in listed.entries]
    answer = {**_numbers(listed), "keys": rows, "revoked": list(listed.revoked)}
    session.output.result(answer, _listing(rows))
    if listed.expires is not None:
        session.output.note(f"agents obey this list until {moment(answer['expires'])}")
    if why := keys.missing(document):
        session.output.note(f"agents would refuse this list: {why}")


def show(session: CliSession, kid: Kid, *, folder: Folder = None, topic_root: TopicRoot = DEFAULT_ROOT) -> None:
    """Show one key of the folder."""
    row = _row(_found(list_of(_folder(folder, topic_root).read()), kid))
    session.output.result(row, facts(*row.items()))


def revoke(
    session: CliSession,
    kid: Kid,
    *,
    list_life: ListLife = None,
    folder: Folder = None,
    topic_root: TopicRoot = DEFAULT_ROOT,
    root_key: RootKey = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Take a key off the list, and name it as revoked."""
    keys = _folder(folder, topic_root)
    listed = list_of(keys.read())
    entry, seconds = _found(listed, kid), _list_life(list_life)
    session.output.confirm(f"Revoke the key {kid} of {entry.principal}?")
    rest = tuple(one for one in listed.entries if kid_of(one) != kid)
    changed = replace(listed, entries=rest, revoked=(*listed.revoked, kid))
    _saved(session, keys, keys.change(changed, _signers(keys, root_key, passphrase_file), seconds))


def rotate_root(
    session: CliSession,
    *,
    drop: Annotated[list[str] | None, typer.Option("--drop", metavar="KID", help="A root key that goes.")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The new file with the new root key.")],
    threshold: Threshold = 1,
    folder: Folder = None,
    topic_root: TopicRoot = DEFAULT_ROOT,
    root_key: RootKey = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make the next root, with a new root key, signed by keys of the root before and by the new one."""
    keys = _folder(folder, topic_root)
    root = root_of(keys.read())
    kids = {Verifier.of_text(one).kid: one for one in root.keys}
    if wrong := sorted(set(drop or ()) - set(kids)):
        text = f"{wrong[0]} is no root key: {', '.join(kids)}"
        raise Misused(text)
    signers = _signers(keys, root_key, passphrase_file)
    try:
        made = create_key(out, _passphrase(passphrase_file, "Passphrase of the new root key", new=True))
    except OSError as error:
        text = f"{out}: {error.strerror}"
        raise Misused(text) from error
    kept = [text for kid, text in kids.items() if kid not in (drop or ())]
    _saved(session, keys, keys.rotate([*kept, made.verifier.text], threshold, [*signers, made]))


def sign(
    session: CliSession,
    *,
    list_life: ListLife = None,
    folder: Folder = None,
    topic_root: TopicRoot = DEFAULT_ROOT,
    root_key: RootKey = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Add the signature of another root key, where more than one must sign; with --list-life sign the next list."""
    keys = _folder(folder, topic_root)
    keys.read()
    seconds = _list_life(list_life)
    _saved(session, keys, keys.sign(_signers(keys, root_key, passphrase_file), seconds))


def publish(session: CliSession, *, folder: Folder = None, topic_root: TopicRoot = DEFAULT_ROOT) -> None:
    """Send the folder's list to the control plane, which publishes it to all agents."""
    keys = _folder(folder, topic_root)
    document = keys.read()
    if why := keys.missing(document):
        text = f"agents would refuse this list: {why}"
        raise Misused(text)
    with session.connect() as plane:
        answer = plane.call("PUT", "/keys", repeatable=True, json=msgspec.to_builtins(document))
    session.output.result(answer, _listing(answer["keys"]))
    session.output.note(f"published: root {answer['root']}, list {answer['version']}")


def published(session: CliSession) -> None:
    """Show the list that the control plane publishes."""
    with session.connect() as plane:
        answer = plane.call("GET", "/keys")
    session.output.result(answer, _listing(answer["keys"]), "no keys are published: agents obey unsigned commands")
    if answer["root_sha256"]:
        session.output.note(f"root SHA-256 {answer['root_sha256']}")
    if answer.get("expires"):
        session.output.note(f"agents obey this list until {moment(answer['expires'])}")
    session.output.note(f"this control plane signs with {answer['kid']}")
    for warning in answer["warnings"]:
        session.output.note(visible(warning), "yellow")


def _listed(
    session: CliSession, keys: KeyFolder, entry: KeyEntry, signers: Sequence[Signer], life: float | None
) -> None:
    listed = list_of(keys.read())
    if (kid := kid_of(entry)) in listed.revoked:
        # Agents would drop it from the list: a revoked key is refused in every name.
        text = f"{kid} was revoked, and agents never obey it again: make another key for {entry.principal}"
        raise Misused(text)
    others = tuple(one for one in listed.entries if one.public_key != entry.public_key)
    _saved(session, keys, keys.change(replace(listed, entries=(*others, entry)), signers, life), entry)


def _saved(session: CliSession, keys: KeyFolder, document: TrustDocument, entry: KeyEntry | None = None) -> None:
    listed = list_of(document)
    answer = {**_numbers(listed), **({} if entry is None else {"key": _row(entry)})}
    until = "" if listed.expires is None else f", obeyed until {moment(answer['expires'])}"
    session.output.result(answer, f"list {listed.version} under root {listed.root}{until}")
    why = keys.missing(document)
    step = session.step("keys", "publish") if why is None else session.step("keys", "sign", "--root-key", "FILE")
    session.output.note(f"next: `{step}`" if why is None else f"{why}: `{step}`")


def _entry(
    public_key: str,
    principal: str,
    roles: Sequence[KeyRole] | None,
    paths: Sequence[str] | None,
    owners: Sequence[str],
    seconds: float,
) -> KeyEntry:
    expires = datetime.now(UTC) + timedelta(seconds=seconds) if seconds else None
    try:
        Verifier.of_text(public_key)
        Globs.excluding(tuple(paths or _EVERYTHING))
        entry = KeyEntry(
            public_key,
            principal,
            tuple(dict.fromkeys(roles or KeyRole)),
            tuple(paths or _EVERYTHING),
            tuple(owners),
            None if expires is None else expires.replace(microsecond=0),
        )
        return msgspec.convert(msgspec.to_builtins(entry), KeyEntry)
    except (SchemaError, msgspec.ValidationError) as error:
        raise Misused(str(error)) from error


def _life(option: str, text: str) -> float:
    """Seconds; 0 is for ever."""
    seconds = duration(text)
    if seconds is None or seconds > _LONGEST:
        message = f"{option} {text!r} is no time: write 730d, or 0 for ever"
        raise Misused(message)
    return seconds


def _list_life(text: str | None) -> float | None:
    return None if text is None else _life("--list-life", text)


def _numbers(listed: KeyList) -> dict[str, Any]:
    expires = None if listed.expires is None else listed.expires.isoformat()
    return {"root": listed.root, "version": listed.version, "expires": expires}


def _found(listed: KeyList, kid: str) -> KeyEntry:
    found = next((one for one in listed.entries if kid_of(one) == kid), None)
    if found is None:
        text = f"the list has no key {kid}: {', '.join(map(kid_of, listed.entries)) or 'it is empty'}"
        raise Misused(text)
    return found


def _row(entry: KeyEntry) -> dict[str, Any]:
    return {KID: kid_of(entry), "expires": None, **msgspec.to_builtins(entry)}


def _listing(rows: Sequence[Row]) -> Listing:
    columns = (
        Column("key", lambda row: row[KID], whole=True),
        Column("name", lambda row: row["principal"]),
        Column("may", lambda row: " ".join(row["roles"])),
        Column("paths", lambda row: " ".join(row["paths"])),
        Column("owners", lambda row: " ".join(row["owners"])),
        Column("expires", lambda row: moment(row.get("expires"))),
    )
    return Listing(columns, rows)


def _folder(folder: Path | None, topic_root: str) -> KeyFolder:
    return KeyFolder(folder or folders.default_folder(), Topics(topic_root).keys())


def _signers(keys: KeyFolder, root_keys: Sequence[Path] | None, passphrase_file: Path | None) -> list[Signer]:
    return [_signer(path, passphrase_file) for path in root_keys or [keys.path / folders.ROOT_KEY]]


def _signer(path: Path, passphrase_file: Path | None) -> Signer:
    try:
        passphrase = _passphrase(passphrase_file, f"Passphrase of {path}") if needs_passphrase(path) else None
        return read_key(path, passphrase)
    except OSError as error:
        text = f"{path}: {error.strerror}"
        raise Misused(text) from error
    except KeyFileError as error:
        raise Misused(str(error)) from error


def _passphrase(path: Path | None, prompt: str, *, new: bool = False) -> str:
    if path is None:
        return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=new, err=True))
    text = secret_from(path, "")
    if not text:
        message = f"{path} holds no passphrase"
        raise Misused(message)
    return text
