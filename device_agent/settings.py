"""What the agent is told from outside: the environment, and `.env` beside it (protocol.md section 7).

Rule: a wrong value stops the program with one line that names it, and a misspelt name is not passed over in silence.
The environment wins over `.env`, and an empty value counts as not set.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, TypeVar

from device_agent.errors import SettingsError
from device_agent.files.roots import Roots
from device_agent.mqtt.broker_url import BrokerUrl
from device_agent.storage.url_policy import UploadHosts
from schemas.errors import SchemaError
from schemas.settings import misspelt, unknown
from schemas.topics import DEFAULT_ROOT, Topics, require_client_id

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
MAX_WORKERS: Final = 64
_MAX_LABELS: Final = 64
_HIDDEN: Final = "(set)"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked settings. The password is in no text that this object makes of itself."""

    client_id: str
    mqtt_url: str = "mqtt://localhost:1883"
    mqtt_username: str | None = None
    mqtt_password: str | None = field(default=None, repr=False)
    file_path: str | None = None
    allowed_roots: tuple[str, ...] = ()
    upload_hosts: tuple[str, ...] = ()
    state_dir: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    max_parallel_parts: int = 4
    max_bytes_per_second: int | None = None
    log_level: str = "info"
    topic_root: str = DEFAULT_ROOT

    @property
    def roots(self) -> Roots:
        """What may be read."""
        return Roots(self.allowed_roots, self.file_path)

    @property
    def hosts(self) -> UploadHosts:
        """Where parts may be sent."""
        return UploadHosts.parse(self.upload_hosts)

    @property
    def topics(self) -> Topics:
        """The topics below the root."""
        return Topics(self.topic_root)

    def lines(self) -> list[str]:
        """`NAME=value`, one line each, for a person to check; a secret shows only that it is set."""
        return [f"{name}={self._shown(name.lower())}" for name in NAMES]

    def _shown(self, name: str) -> str:
        value = getattr(self, name)
        if name == "mqtt_password":
            return _HIDDEN if value else ""
        if isinstance(value, tuple):
            return ",".join(value)
        if isinstance(value, Mapping):
            return ",".join(f"{key}={text}" for key, text in value.items())
        return "" if value is None else str(value)


NAMES: Final = tuple(one.name.upper() for one in fields(Settings))


def load_settings(environ: Mapping[str, str], env_file: Path | None = None) -> Settings:
    """Read the settings; `SettingsError` names the first wrong one and says what is allowed."""
    told = {**(_read_env_file(env_file) if env_file else {}), **environ}
    _refuse(misspelt(told, NAMES))
    told = {name: told[name].strip() for name in NAMES if told.get(name, "").strip()}
    client_id = _checked("CLIENT_ID", told, _client_id)
    username = told.get("MQTT_USERNAME") or (client_id if "MQTT_PASSWORD" in told else None)
    if username not in {None, client_id}:
        text = "MQTT_USERNAME must be the same as CLIENT_ID: the broker knows a device by one name"
        raise SettingsError(text)
    settings = Settings(
        client_id=client_id,
        mqtt_url=told.get("MQTT_URL", "mqtt://localhost:1883"),
        mqtt_username=username,
        mqtt_password=told.get("MQTT_PASSWORD"),
        file_path=_checked("FILE_PATH", told, _absolute) if "FILE_PATH" in told else None,
        allowed_roots=_checked("ALLOWED_ROOTS", told, _list_of(_absolute)),
        upload_hosts=_checked("UPLOAD_HOSTS", told, _list_of(str)),
        state_dir=Path(told.get("STATE_DIR") or _default_state_dir(environ, client_id)),
        labels=_checked("LABELS", told, _labels),
        max_parallel_parts=_checked("MAX_PARALLEL_PARTS", {"MAX_PARALLEL_PARTS": "4", **told}, _workers),
        max_bytes_per_second=_checked("MAX_BYTES_PER_SECOND", told, _rate) if "MAX_BYTES_PER_SECOND" in told else None,
        log_level=_checked("LOG_LEVEL", {"LOG_LEVEL": "info", **told}, _log_level),
        topic_root=told.get("TOPIC_ROOT", DEFAULT_ROOT),
    )
    _require_usable(settings)
    return settings


def _require_usable(settings: Settings) -> None:
    """What other modules can read out of the settings, they read now."""
    BrokerUrl.parse(settings.mqtt_url)
    _ = settings.roots, settings.hosts
    try:
        _ = settings.topics
    except SchemaError as error:
        text = f"TOPIC_ROOT: {error}"
        raise SettingsError(text) from error


def _checked(name: str, told: Mapping[str, str], read: Callable[[str], T]) -> T:
    try:
        return read(told.get(name, ""))
    except ValueError as error:
        text = f"{name}: {error}"
        raise SettingsError(text) from error


def _client_id(text: str) -> str:
    if not text:
        message = "is not set; it names this device, for example restaurant-1"
        raise ValueError(message)
    return require_client_id(text)


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        message = f"{text!r} must be an absolute path"
        raise ValueError(message)
    return text


def _list_of(read: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    return lambda text: tuple(read(part.strip()) for part in text.split(",") if part.strip())


def _labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for entry in _list_of(str)(text):
        name, equals, value = entry.partition("=")
        if not (equals and name.strip() and value.strip()):
            message = f"{entry!r} must look like site=berlin,model=pi4"
            raise ValueError(message)
        labels[name.strip()] = value.strip()
    if len(labels) > _MAX_LABELS:
        message = f"{len(labels)} labels are too many: at most {_MAX_LABELS} are allowed"
        raise ValueError(message)
    return labels


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        message = f"{text!r} must be a whole number"
        raise ValueError(message)
    return int(text)


def _workers(text: str) -> int:
    number = _number(text)
    if not 1 <= number <= MAX_WORKERS:
        message = f"{number} must be 1 to {MAX_WORKERS}"
        raise ValueError(message)
    return number


def _rate(text: str) -> int:
    number = _number(text)
    if number < 1:
        message = "must be at least 1 byte per second; leave it out for no limit"
        raise ValueError(message)
    return number


def _log_level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        message = f"{text!r} must be one of {', '.join(LOG_LEVELS)}"
        raise ValueError(message)
    return text.lower()


def _default_state_dir(environ: Mapping[str, str], client_id: str) -> str:
    """Where systemd says (systemd.exec(5), StateDirectory), else where the XDG base directories have it."""
    if told := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return told
    if os.geteuid() == 0:
        return f"/var/lib/backhaul/{client_id}"
    home = environ.get("XDG_STATE_HOME") or f"{environ.get('HOME', '')}/.local/state"
    return f"{home}/backhaul/{client_id}"


def _refuse(lines: Sequence[str]) -> None:
    if lines:
        raise SettingsError(lines[0])


def _read_env_file(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        text = f"{path} cannot be read: {error}"
        raise SettingsError(text) from error
    entries = dict(_entry(path, number, line) for number, line in enumerate(lines, 1) if _says_something(line))
    _refuse([f"{path}: {line}" for line in unknown(entries, NAMES)])
    return entries


def _says_something(line: str) -> bool:
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
