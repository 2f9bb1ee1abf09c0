"""Makes checked settings of what the sources give.

Rule: one pass from texts and TOML values to `Settings`; an error names the setting and the file that it stands in.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, ValidationError, convert

from device_agent.errors import SettingsError
from device_agent.policy.document import FILE_NAME, read_document
from device_agent.policy.rules import DEFAULT_POLICY, DevicePolicy
from device_agent.settings.checks import WrongSetting, require_id, require_usable
from device_agent.settings.model import DECIMALS, LISTS, MUST, MUST_IN_TOML, NAMES, NUMBERS, PATHS, SECRETS, Settings
from device_agent.settings.sources import ADMINISTRATOR, Given, is_there, read_sources
from schemas.environment import is_utf8

if TYPE_CHECKING:
    from schemas.signing.enrolment import Bundle

_GAP: Final = 40
"""Columns of `NAME=value`, before the place."""


class LoadedSettings(Struct, frozen=True):
    """Settings, with the place of each that was given (`environment`, or the file), and lines for the administrator.

    `files` are the TOML files that were read, `env_file` is the place of `.env`, if there is one. `policy` is what the
    owner of the device allows beside them. `bundle` is that of the enrolment, in `bundle_file`.
    """

    settings: Settings
    places: Mapping[str, str]
    files: tuple[Path, ...]
    warnings: tuple[str, ...]
    env_file: Path | None = None
    policy: DevicePolicy = DEFAULT_POLICY
    bundle: "Bundle | None" = None
    bundle_file: Path | None = None

    @property
    def own_files(self) -> tuple[Path, ...]:
        """The files and folders that settings are read from, where they exist, and what a crash may leave of them."""
        own = (self.env_file, ADMINISTRATOR, self.policy.file, *_of_bundle(self.bundle_file), *self.files)
        return tuple(filter(None, own))

    def lines(self) -> list[str]:
        """`NAME=value  # place`, one line each; a secret shows only that it is set."""
        pairs = zip(NAMES, self.settings.lines(), strict=True)
        return [f"{line:{_GAP}}  # {self.places.get(name, 'default')}" for name, line in pairs]


def _of_bundle(file: Path | None) -> tuple[Path, ...]:
    """The bundle, the request for it with the private keys of the device, and either while it is being written."""
    if file is None:
        return ()
    # A device without a bundle needs nothing of the enrolment.
    from device_agent.enrolment.request_file import request_place  # noqa: PLC0415

    return tuple(one.with_name(f"{one.name}{end}") for one in (file, request_place(file)) for end in ("", ".new"))


def load_settings(environ: Mapping[str, str], env_file: Path | None = None, folders: Sequence[Path] = ()) -> Settings:
    """Read the settings; `SettingsError` names the first wrong one and what is allowed."""
    return load(environ, env_file, folders).settings


def load(environ: Mapping[str, str], env_file: Path | None = None, folders: Sequence[Path] = ()) -> LoadedSettings:
    """The same, with the places. A later folder of `folders` is stronger; each must exist."""
    sources = read_sources(environ, env_file, folders)
    try:
        settings = settings_of(sources.given, environ)
    except WrongSetting as error:
        given = sources.given.get(error.name)
        if given is None or given.file is None:
            raise
        text = f"{given.file}: {error.name.lower() if given.toml else error.name}: {error.reason}"
        raise SettingsError(text) from error
    places = {name: "environment" if one.file is None else str(one.file) for name, one in sources.given.items()}
    return LoadedSettings(
        settings=settings,
        places=places,
        files=sources.files,
        warnings=sources.warnings,
        env_file=env_file,
        policy=load_policy(settings),
        bundle=sources.bundle,
        bundle_file=sources.bundle_file,
    )


def load_policy(settings: Settings) -> DevicePolicy:
    """The policy of POLICY_FILE, else that of the administrator's folder, if there is one; `SettingsError`."""
    path = ADMINISTRATOR / FILE_NAME if settings.policy_file is None else Path(settings.policy_file)
    # A link to a disk that is not mounted is there too: its policy is not known.
    if settings.policy_file is None and not (path.is_symlink() or is_there(path)):
        return DEFAULT_POLICY
    policy = DevicePolicy(read_document(path), path)
    try:
        settings.hosts.narrowed(policy.document.hosts, policy.name)
    except SettingsError as error:
        text = f"{path}: {str(error).replace('UPLOAD_HOSTS', 'hosts', 1)}"
        raise SettingsError(text) from error
    return policy


def settings_of(given: Mapping[str, Given], environ: Mapping[str, str]) -> Settings:
    """Checked settings of what was given; `SettingsError`."""
    for name, one in given.items():
        if name not in PATHS and isinstance(one.value, str) and not is_utf8(one.value):
            raise WrongSetting(name=name, reason="is not UTF-8")
    values = {name: one.value if one.toml else parsed(name, one.value) for name, one in given.items()}
    client_id = require_id(values.get("CLIENT_ID"))
    if "MQTT_PASSWORD" in values:
        values.setdefault("MQTT_USERNAME", client_id)
    if values.get("MQTT_USERNAME") not in {None, client_id}:
        reason = "must be the same as CLIENT_ID: the broker knows a device by one name"
        raise WrongSetting(name="MQTT_USERNAME", reason=reason)
    values.setdefault("STATE_DIR", _default_state_dir(environ, client_id))
    settings = _converted(values, given)
    require_usable(settings)
    return settings


def _converted(values: Mapping[str, Any], given: Mapping[str, Given]) -> Settings:
    try:
        fields = {name.lower(): value for name, value in values.items()}
        return convert(fields, Settings, dec_hook=lambda kind, value: kind(value))
    except ValidationError as error:
        field = re.search(r"\$\.(\w+)", str(error))
        name = field[1].upper() if field else ""
        one = given.get(name, Given(""))
        must = MUST_IN_TOML.get(name) if one.toml else None
        must = must or MUST.get(name) or ("must be a text" if one.toml else str(error))
        reason = must if name in SECRETS else f"{one.value!r} {must}"
        raise WrongSetting(name=name, reason=reason) from error


def parsed(name: str, text: str) -> Any:  # noqa: ANN401 (what `convert` takes for the field)
    """What TOML would hold for this text of a setting; the text itself where it is no such value."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if name in LISTS:
        return parts
    if name in NUMBERS:
        # Digits only: the conversion of msgspec also accepts 1e6 and null.
        return int(text) if re.fullmatch("[0-9]{1,100}", text) else text
    if name in DECIMALS:
        return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else text
    match name:
        case "LABELS":
            pairs = (part.partition("=") for part in parts)
            return {key.strip(): value.strip() for key, _, value in pairs}
        case "TYPES":
            types: dict[str, list[str]] = {}
            for key, _, value in (part.partition("=") for part in parts):
                types.setdefault(key.strip(), []).append(value.strip())
            return types
        case "LOG_LEVEL" | "METERED":
            return text.lower()
        case _:
            return text


def _default_state_dir(environ: Mapping[str, str], client_id: str) -> str:
    """The folder of systemd (systemd.exec(5), StateDirectory), else that of the XDG base directories."""
    if of_systemd := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return of_systemd
    if os.geteuid() == 0:
        return f"/var/lib/backhaul/{client_id}"
    home = environ.get("XDG_STATE_HOME") or f"{environ.get('HOME', '')}/.local/state"
    return f"{home}/backhaul/{client_id}"
