"""The settings of the agent: the environment, and the file `.env` beside it.

Rule: a wrong value stops the program with one line that names it, and so does a misspelt name. The environment has
priority over `.env`, and an empty value counts as not set.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from msgspec import Meta, Struct, ValidationError, convert

from device_agent.errors import SettingsError
from device_agent.storage.url_policy import UploadHosts
from device_agent.system_info import ZONE_PATTERN, is_zone
from schemas.broker_url import BrokerUrl
from schemas.codec import decode, encode
from schemas.environment import is_utf8
from schemas.errors import SchemaError
from schemas.file_names import spelled
from schemas.globs import Globs
from schemas.messages import MAX_TYPES, Presence, TypeName
from schemas.topics import DEFAULT_ROOT, Topics, require_client_id

MAX_WORKERS: Final = 64
_MAX_LABELS: Final = 64
_LONGEST_LABEL: Final = 256
_MAX_GLOBS: Final = 100
_PATHS: Final = frozenset({"FILE_PATH", "ALLOWED_ROOTS", "STATE_DIR", "METRICS_FILE"})
"""A path is bytes; all other settings are text."""

_HIDDEN: Final = "(set)"

LogLevel = Literal["debug", "info", "warning", "error"]
_Label = Annotated[str, Meta(min_length=1, max_length=_LONGEST_LABEL)]
_AbsolutePath = Annotated[str, Meta(pattern="^/")]
_Globs = Annotated[tuple[_AbsolutePath, ...], Meta(max_length=_MAX_GLOBS)]


class Settings(Struct, frozen=True, kw_only=True):
    """Checked settings. No text that this object makes of itself contains the password."""

    client_id: str
    mqtt_url: str = "mqtt://localhost:1883"
    mqtt_username: str | None = None
    mqtt_password: str | None = None
    file_path: _AbsolutePath | None = None
    allowed_roots: tuple[_AbsolutePath, ...] = ()
    upload_hosts: tuple[str, ...] = ()
    state_dir: Path
    types: Annotated[dict[TypeName, _Globs], Meta(max_length=MAX_TYPES)] = {}
    labels: Annotated[dict[_Label, _Label], Meta(max_length=_MAX_LABELS)] = {}
    timezone: Annotated[str, Meta(pattern=ZONE_PATTERN)] | None = None
    max_parallel_parts: Annotated[int, Meta(ge=1, le=MAX_WORKERS)] = 4
    max_bytes_per_second: Annotated[int, Meta(ge=1)] | None = None
    spool_max_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 10 * 2**30
    spool_max_percent: Annotated[int, Meta(ge=0, le=100)] = 25
    metrics_file: _AbsolutePath | None = None
    metrics_port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    log_level: LogLevel = "info"
    topic_root: str = DEFAULT_ROOT

    def __repr__(self) -> str:
        return f"Settings({', '.join(self.lines())})"

    @property
    def default_file(self) -> str | None:
        """`FILE_PATH`, as it is spelled on the wire."""
        return None if self.file_path is None else spelled(self.file_path)

    @property
    def hosts(self) -> UploadHosts:
        """The hosts that parts may be sent to."""
        return UploadHosts.parse(self.upload_hosts)

    @property
    def exposure(self) -> str | None:
        """The warning for a password that crosses a network unencrypted; the program shows it at each start."""
        return BrokerUrl.parse(self.mqtt_url).exposure(self.mqtt_password)

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
            return spelled(",".join(value))
        if isinstance(value, Mapping):
            pairs = ((key, text if isinstance(text, tuple) else (text,)) for key, text in value.items())
            return ",".join(f"{key}={text}" for key, texts in pairs for text in texts)
        return "" if value is None else spelled(str(value))


NAMES: Final = tuple(name.upper() for name in Settings.__struct_fields__)

_MUST: Final[Mapping[str, str]] = {
    "FILE_PATH": "must be an absolute path",
    "ALLOWED_ROOTS": "must be absolute paths, with commas between them",
    "TYPES": f"must look like sales=/data/sales/*.csv,logs=/var/log/**/*.log, at most {MAX_TYPES} names",
    "TIMEZONE": "must be an IANA name, such as Europe/Berlin",
    "LABELS": f"must look like site=berlin,model=pi4, at most {_MAX_LABELS}, of at most {_LONGEST_LABEL} characters",
    "MAX_PARALLEL_PARTS": f"must be a whole number from 1 to {MAX_WORKERS}",
    "MAX_BYTES_PER_SECOND": "must be a whole number of at least 1 byte per second; leave it out for no limit",
    "SPOOL_MAX_BYTES": "must be a whole number of bytes; 0 allows no copies",
    "SPOOL_MAX_PERCENT": "must be a whole number from 0 to 100",
    "METRICS_FILE": "must be an absolute path, such as /var/lib/prometheus/node-exporter/backhaul.prom",
    "METRICS_PORT": "must be a port of this device, from 1 to 65535",
    "LOG_LEVEL": f"must be one of {', '.join(get_args(LogLevel))}",
}
"""What to write instead, for each setting that `convert` checks."""


def load_settings(environ: Mapping[str, str], env_file: Path | None = None) -> Settings:
    """Read the settings; `SettingsError` names the first wrong one and what is allowed."""
    given = {**(_read_env_file(env_file) if env_file else {}), **environ}
    _refuse(misspelt(given))
    texts = {name: given[name].strip() for name in NAMES if given.get(name, "").strip()}
    _refuse([f"{name}: is not UTF-8" for name, text in texts.items() if name not in _PATHS and not is_utf8(text)])
    client_id = _client_id(texts.get("CLIENT_ID", ""))
    if "MQTT_PASSWORD" in texts:
        texts.setdefault("MQTT_USERNAME", client_id)
    if texts.get("MQTT_USERNAME") not in {None, client_id}:
        text = "MQTT_USERNAME must be the same as CLIENT_ID: the broker knows a device by one name"
        raise SettingsError(text)
    texts.setdefault("STATE_DIR", _default_state_dir(environ, client_id))
    settings = _converted(texts)
    _require_usable(settings)
    return settings


def _converted(texts: Mapping[str, str]) -> Settings:
    values = {name.lower(): _parsed(name, text) for name, text in texts.items()}
    try:
        return convert(values, Settings, dec_hook=lambda kind, value: kind(value))
    except ValidationError as error:
        field = re.search(r"\$\.(\w+)", str(error))
        name = field[1].upper() if field else ""
        text = f"{name}: {texts.get(name, '')!r} {_MUST.get(name, str(error))}"
        raise SettingsError(text) from error


def _parsed(name: str, text: str) -> Any:  # noqa: ANN401 (what `convert` takes for the field)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    match name:
        case "ALLOWED_ROOTS" | "UPLOAD_HOSTS":
            return parts
        case "LABELS":
            pairs = (part.partition("=") for part in parts)
            return {key.strip(): value.strip() for key, _, value in pairs}
        case "TYPES":
            types: dict[str, list[str]] = {}
            for key, _, value in (part.partition("=") for part in parts):
                types.setdefault(key.strip(), []).append(value.strip())
            return types
        case "MAX_PARALLEL_PARTS" | "MAX_BYTES_PER_SECOND" | "SPOOL_MAX_BYTES" | "SPOOL_MAX_PERCENT" | "METRICS_PORT":
            # Digits only: the conversion of msgspec also accepts 1e6 and null.
            return int(text) if re.fullmatch("[0-9]{1,100}", text) else text
        case "LOG_LEVEL":
            return text.lower()
        case _:
            return text


def _require_usable(settings: Settings) -> None:
    """Read now what other modules will read from the settings later."""
    _ = settings.hosts
    try:
        BrokerUrl.parse(settings.mqtt_url)
    except SchemaError as error:
        text = f"MQTT_URL: {error}; the password goes to MQTT_PASSWORD"
        raise SettingsError(text) from error
    for name, globs in settings.types.items():
        try:
            Globs(globs)
        except SchemaError as error:
            text = f"TYPES: {name}: {error}"
            raise SettingsError(text) from error
    if settings.timezone is not None and not is_zone(settings.timezone):
        text = f"TIMEZONE: {settings.timezone!r} {_MUST['TIMEZONE']}"
        raise SettingsError(text)
    _require_presence(settings)
    try:
        _ = settings.topics
    except SchemaError as error:
        text = f"TOPIC_ROOT: {error}"
        raise SettingsError(text) from error


def _require_presence(settings: Settings) -> None:
    """A control plane must be able to read what every presence repeats."""
    always = {"client_id": settings.client_id, "status": "online", "install_id": "x", "epoch": 0, "sequence": 0}
    for name, field in (
        ("FILE_PATH", {"default_file": settings.default_file}),
        ("LABELS", {"labels": settings.labels}),
    ):
        try:
            decode(Presence, encode(convert({**always, **field}, Presence)))
        except (SchemaError, ValidationError) as error:
            text = f"{name}: fits into no message: {error}"
            raise SettingsError(text) from error


def _client_id(text: str) -> str:
    if not text:
        message = "CLIENT_ID: is not set; it names this device, for example restaurant-1"
        raise SettingsError(message)
    try:
        return require_client_id(text)
    except SchemaError as error:
        message = f"CLIENT_ID: {error}"
        raise SettingsError(message) from error


def _default_state_dir(environ: Mapping[str, str], client_id: str) -> str:
    """The folder of systemd (systemd.exec(5), StateDirectory), else that of the XDG base directories."""
    if of_systemd := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return of_systemd
    if os.geteuid() == 0:
        return f"/var/lib/backhaul/{client_id}"
    home = environ.get("XDG_STATE_HOME") or f"{environ.get('HOME', '')}/.local/state"
    return f"{home}/backhaul/{client_id}"


def _refuse(lines: Sequence[str]) -> None:
    if lines:
        raise SettingsError(lines[0])


def _read_env_file(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        text = f"{path} cannot be read: {error}"
        raise SettingsError(text) from error
    entries = dict(_entry(path, number, line) for number, line in enumerate(lines, 1) if _is_entry(line))
    _refuse([f"{path}: {line}" for line in unknown(entries)])
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


# Misspelt names.

_CONTROL_PLANE: Final = """
    SERVER_HOST SERVER_PORT ALLOWED_HOSTS TRUSTED_PROXIES MQTT_URL MQTT_USERNAME MQTT_PASSWORD DATABASE_URL AWS_REGION
    AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_ENDPOINT S3_PUBLIC_ENDPOINT S3_BUCKET_NAME
    S3_CHUNK_SIZE S3_DIGEST S3_ENCRYPTION S3_ADDRESSING BASE_S3_PATH PRESIGNED_URL_EXPIRY CLIENT_TIMEOUT JWT_SECRET AUTH
    CLIENT_MAX_UPLOADS CLIENT_MAX_BYTES MAX_JOB_FILES WEBHOOK_NETWORKS MAX_TOKEN_LIFETIME REQUIRE_PROOF HISTORY_DAYS
    OTEL_EXPORTER_OTLP_ENDPOINT TOPIC_ROOT LOG_LEVEL
"""
CONTROL_PLANE_NAMES: Final = frozenset(_CONTROL_PLANE.split())
"""One `.env` may serve both sides, so these names are allowed in it."""

_TOOLS: Final = ("BACKHAUL_", "COMPOSE_", "DOCKER_")
_OTHER_PROGRAMS: Final = frozenset({"LOGLEVEL"})
_CLOSE: Final = 0.88
"""Finds one missing or one extra letter in any name, and one replaced letter only in a name of nine or more."""
_SHORT: Final = 4
"""A name of so few letters has many similar ones of other programs."""


def unknown(names: Collection[str]) -> list[str]:
    """One line for each name of a file that no part of Backhaul reads."""
    unread = [name for name in names if name not in {*NAMES, *CONTROL_PLANE_NAMES} and not name.startswith(_TOOLS)]
    return [_hint(name, get_close_matches(name.upper(), NAMES, 1)) for name in unread]


def misspelt(given: Mapping[str, str]) -> list[str]:
    """One line for each variable whose name is nearly that of a setting that is not given.

    The environment belongs to every program, so only a very similar name counts: the same letters, the beginning of a
    setting, one letter wrong, or `…_FILE`, which nothing read into its setting. Links that Kubernetes and Docker set
    (`SERVERS_PORT=tcp://…`) do not count.
    """
    names = sorted(set(given) - {*NAMES, *CONTROL_PLANE_NAMES} - _OTHER_PROGRAMS)
    meant = {name: _meant(name) for name in names if not given[name].startswith(("tcp:", "udp:"))}
    return [_hint(name, [setting]) for name, setting in meant.items() if setting and not given.get(setting)]


def _meant(name: str) -> str | None:
    swapped = [setting for setting in NAMES if sorted(setting) == sorted(name)]
    begun = [setting for setting in NAMES if "_" in name and setting.startswith(name)]
    replaced = [setting for setting in NAMES if len(name) > _SHORT and _one_letter_differs(name, setting)]
    close = [setting for setting in get_close_matches(name, NAMES, 3, _CLOSE) if setting[0] == name[0]]
    file = [setting for setting in NAMES if name == f"{setting}_FILE"]
    return next(iter([*swapped, *begun, *replaced, *close, *file]), None)


def _one_letter_differs(name: str, setting: str) -> bool:
    comparable = len(name) == len(setting) and name[0] == setting[0]
    return comparable and sum(one != other for one, other in zip(name, setting, strict=True)) == 1


def _hint(name: str, near: Sequence[str]) -> str:
    return f"{name} is not a setting" + (f": did you mean {near[0]}?" if near else "")
