"""The file of contexts, `$XDG_CONFIG_HOME/backhaul/config.toml`, and the control plane that a command means.

Rule: the file is its owner's alone, for it may hold tokens. A token of a context is sent to the server of that context
and to no other.
"""

import json
import os
import re
import shlex
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from control_plane.cli.errors import Misused
from control_plane.cli.program import program
from control_plane.cli.secret_files import secret_from
from control_plane.cli.text import visible

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"
"""The control plane of this machine, where none is named."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class KnownPlane:
    """One context: a control plane, and where its token is. `token` stands in the file itself."""

    server: str
    token_file: str | None = None
    token: str | None = None

    def secret(self) -> str | None:
        """The token, read now; `Misused` for a file that cannot be read."""
        return self.token or (secret_from(Path(self.token_file), "") if self.token_file else None)


@dataclass(frozen=True, slots=True)
class Contexts:
    """All contexts; `current` is the one that is used without a name."""

    places: Mapping[str, KnownPlane] = field(default_factory=dict)
    current: str | None = None

    def require(self, name: str) -> KnownPlane:
        """The context of this name; `Misused` when there is none."""
        if name not in self.places:
            known = ", ".join(self.places) or f"there are none: `{program()} context add --help` shows how to add one"
            text = f"there is no context {visible(name)!r} ({known})"
            raise Misused(text)
        return self.places[name]


@dataclass(frozen=True, slots=True)
class Target:
    """The control plane that a command means; `context` is the name of the context that it comes from, if any."""

    server: str
    token: str | None = None
    context: str | None = None


def config_file() -> Path:
    """The file of contexts; `Misused` for a user without a home folder."""
    try:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    except (RuntimeError, KeyError) as error:
        text = "this user has no home folder: name one in XDG_CONFIG_HOME"
        raise Misused(text) from error
    return base / "backhaul" / "config.toml"


def load(path: Path | None = None) -> Contexts:
    """The contexts; none when there is no file. `Misused` for one that is damaged or open to other users."""
    try:
        path = path or config_file()
    except Misused:
        # Users of containers and of services have no home.
        return Contexts()
    try:
        text = path.read_text("utf-8")
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Contexts()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: {getattr(error, 'strerror', None) or 'it is no text'}"
        raise Misused(message) from error
    if mode & _OTHERS:
        message = f"other users can read {path}, which may hold tokens: `chmod 600 {shlex.quote(str(path))}`"
        raise Misused(message)
    try:
        return _read(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        message = f"{path}: {error}"
        raise Misused(message) from error


def save(contexts: Contexts, path: Path | None = None) -> None:
    """Write the file as a whole, readable by its owner; `Misused` when that is not possible."""
    path = path or config_file()
    lines = [] if contexts.current is None else [f"current = {_quoted(contexts.current)}\n"]
    for name, place in contexts.places.items():
        lines.append(f"\n[contexts.{_quoted(name)}]\n")
        members = {"server": place.server, "token_file": place.token_file, "token": place.token}
        lines += [f"{key} = {_quoted(value)}\n" for key, value in members.items() if value is not None]
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A new file, for no reader may see half of one; mkstemp gives it to its owner alone.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("".join(lines))
        Path(name).replace(path)
    except OSError as error:
        message = f"{error.filename or path}: {error.strerror}"
        raise Misused(message) from error


def require_name(name: str) -> str:
    """The name of a context, checked."""
    if _NAME.fullmatch(name) is None:
        text = f"{visible(name)!r} is no name of a context: 1 to 64 of A-Z a-z 0-9 . _ -"
        raise Misused(text)
    return name


def target_of(*, server: str | None = None, token: str | None = None, context: str | None = None) -> Target:
    """What is typed, then the environment, then the context. A context that is typed comes before the environment."""
    if context is not None:
        place = load().require(context)
        if server not in (None, place.server):
            return Target(str(server), token)
        return Target(place.server, token or place.secret(), context)
    url: str | None = server if server is not None else os.environ.get("BACKHAUL_URL") or None
    secret: str | None = token or secret_from(None, "BACKHAUL_TOKEN")
    if url is not None and secret is not None:
        return Target(url, secret)
    name, named = _chosen_context()
    if named is None or (url is not None and url != named.server):
        return Target(DEFAULT_SERVER if url is None else url, secret)
    return Target(named.server, secret or named.secret(), name)


def _chosen_context() -> tuple[str | None, KnownPlane | None]:
    """The context of the environment, or the current one."""
    asked = os.environ.get("BACKHAUL_CONTEXT") or None
    if asked is not None:
        return asked, load().require(asked)
    contexts = load()
    return contexts.current, contexts.places.get(contexts.current or "")


def _read(document: Mapping[str, object]) -> Contexts:
    places, current = document.get("contexts", {}), document.get("current")
    if not isinstance(places, dict) or not (current is None or isinstance(current, str)):
        message = "`contexts` must be a table, `current` a text"
        raise TypeError(message)
    return Contexts({name: _place(name, members) for name, members in places.items()}, current)


def _place(name: str, members: object) -> KnownPlane:
    if not isinstance(members, dict) or not all(isinstance(value, str) for value in members.values()):
        message = f"contexts.{name} must be a table of texts"
        raise TypeError(message)
    if unknown := set(members) - {"server", "token_file", "token"}:
        message = f"contexts.{name} has no {min(unknown)}"
        raise ValueError(message)
    if "server" not in members:
        message = f"contexts.{name} has no server"
        raise ValueError(message)
    return KnownPlane(**members)


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's escapes are TOML's, and DEL is the only other one that it wants."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
