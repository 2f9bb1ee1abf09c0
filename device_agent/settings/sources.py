"""Reads the sources of settings: the environment, the file `.env` beside it, and folders of TOML files.

Rule: reading only; each value keeps the place where it was written. A stronger source hides the whole value of a weaker
one: environment, `.env`, then the files of each folder from last to first, the folders likewise, and last the bundle.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from device_agent.enrolment.bundle import bundle_place, read_bundle, readable_by_others, settings_in
from device_agent.errors import SettingsError
from device_agent.settings.model import NAMES, PROXIES, SECRETS
from device_agent.settings.names import SPELLING
from schemas.setting_names import hint

if TYPE_CHECKING:
    from schemas.signing.enrolment import Bundle

ADMINISTRATOR: Final = Path("/etc/backhaul")
"""The folder of the administrator; the agent never writes in it."""

CONFIG_DIRS: Final = (Path("/usr/lib/backhaul-agent/agent.d"), ADMINISTRATOR / "agent.d")
"""The folders that are read where they exist, and none is given: the package's, and over it the administrator's."""

_OTHERS: Final = 0o004


class Given(Struct, frozen=True):
    """One value as it was written: a text, or what TOML makes of it. `file` is None for the environment."""

    value: Any
    file: Path | None = None
    toml: bool = False


class Sources(Struct, frozen=True):
    """`given` by the setting's name, from `files` among others; `warnings` are lines for the administrator."""

    given: Mapping[str, Given]
    files: tuple[Path, ...]
    warnings: tuple[str, ...]
    bundle: "Bundle | None" = None
    bundle_file: Path | None = None


def is_there(folder: Path) -> bool:
    """Whether a folder has to be read. One that may not be looked at counts: its settings must not be missed."""
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read_sources(environ: Mapping[str, str], env_file: Path | None, folders: Sequence[Path]) -> Sources:
    """All that is given; `SettingsError` for a file that cannot be read, or has a name that is no setting."""
    written: dict[str, Given] = {}
    warnings: list[str] = []
    files = tuple(file for folder in folders for file in _files_of(folder))
    for path in files:
        found = _read_toml(path)
        values = {name: Given(value, path, toml=True) for name, value in found.items()}
        warnings += _readable_secrets(path, found)
        written.update(values)
    if env_file is not None:
        lines = _read_env_file(env_file)
        warnings += _readable_secrets(env_file, lines)
        written.update({name: Given(text, env_file) for name, text in lines.items()})
    present = {name: str(one.value) for name, one in written.items() if _is_set(one.value)}
    _refuse(SPELLING.misspelt({**present, **environ}))
    written.update({name: Given(text) for name, text in environ.items()})
    named = written.get("BUNDLE_FILE")
    bundle_file = bundle_place(None if named is None else str(named.value).strip(), environ)
    bundle = None if bundle_file is None else read_bundle(bundle_file)
    if bundle is not None and bundle_file is not None:
        warnings += filter(None, [readable_by_others(bundle_file)])
        of_bundle = settings_in(bundle, bundle_file).items()
        weakest = {name: Given(value, bundle_file, toml=True) for name, value in of_bundle}
        written = {**weakest, **{name: one for name, one in written.items() if _is_set(one.value)}}
    given = {name: _stripped(written[name]) for name in NAMES if name in written and _is_set(written[name].value)}
    return Sources(given, files, tuple(warnings), bundle, bundle_file)


def _is_set(value: object) -> bool:
    """An empty text stands for the default; an empty list or table does so by itself."""
    return not isinstance(value, str) or bool(value.strip())


def _stripped(given: Given) -> Given:
    return given if given.toml else Given(given.value.strip(), given.file)


def _refuse(lines: Sequence[str]) -> None:
    if lines:
        raise SettingsError(lines[0])


def _readable_secrets(path: Path, values: Mapping[str, object]) -> list[str]:
    # The URL of a proxy is a secret if it has credentials.
    secrets = sorted(name for name in SECRETS & values.keys() if name not in PROXIES or "@" in str(values[name]))
    try:
        readable = bool(secrets) and bool(path.stat().st_mode & _OTHERS)
    except OSError:
        readable = False
    return [f"{path}: every user of this device can read {', '.join(secrets)}: chmod o-r {path}"] if readable else []


# TOML.


def _files_of(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if one.suffix == ".toml" and not one.name.startswith("."))
    except OSError as error:
        raise _unreadable(folder, error) from error


def _read_toml(path: Path) -> dict[str, Any]:
    # An agent without such a file needs no parser in its memory.
    import tomllib  # noqa: PLC0415

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        text = f"{path}: is not UTF-8"
        raise SettingsError(text) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        text = f"{path}: is no TOML: {error}"
        raise SettingsError(text) from error
    keys = [name.lower() for name in NAMES]
    for key in values:
        if key not in keys:
            text = f"{path}: {hint(key, get_close_matches(key.lower(), keys, 1))}"
            raise SettingsError(text)
    return {key.upper(): value for key, value in values.items()}


def _unreadable(path: Path, error: OSError) -> SettingsError:
    more = "; root and the agent's own user can" if isinstance(error, PermissionError) else ""
    return SettingsError(f"{path} cannot be read: {error.strerror}{more}")


# `.env`.


def _read_env_file(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        text = f"{path} cannot be read: {error}"
        raise SettingsError(text) from error
    entries = dict(_entry(path, number, line) for number, line in enumerate(lines, 1) if _is_entry(line))
    _refuse([f"{path}: {line}" for line in SPELLING.unknown(entries)])
    return entries


def _is_entry(line: str) -> bool:
    return bool(line.strip()) and not line.strip().startswith("#")


def _entry(path: Path, number: int, line: str) -> tuple[str, str]:
    name, equals, value = line.strip().removeprefix("export ").partition("=")
    if not equals or not name.strip():
        # The line is not repeated: it may be half of a secret.
        text = f"{path}, line {number}: must look like NAME=value"
        raise SettingsError(text)
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return name.strip(), value
