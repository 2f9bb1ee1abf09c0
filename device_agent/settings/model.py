"""The settings, their names, and what each may hold.

Rule: shapes only. Where a value comes from is `device_agent.settings.sources`'s; a new setting is one field here, and
its lines in the tables below.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, Struct

from device_agent.reach.broker_link import BrokerWay
from device_agent.reach.proxy import HttpProxy, shown
from device_agent.reach.upload_link import UploadWay
from device_agent.storage.url_policy import UploadHosts
from device_agent.system_info import ZONE_PATTERN
from device_agent.tls import TlsFiles
from schemas.broker_url import BrokerUrl
from schemas.file_names import spelled
from schemas.messages import MAX_TYPES, TypeName
from schemas.topics import DEFAULT_ROOT, Topics

MAX_WORKERS: Final = 64
_MAX_LABELS: Final = 64
_LONGEST_LABEL: Final = 256
_MAX_GLOBS: Final = 100
_HIDDEN: Final = "(set)"

LogLevel = Literal["debug", "info", "warning", "error"]
Metered = Literal["auto", "yes", "no"]
_Cap = Annotated[int, Meta(ge=0, le=2**53 - 1)]
_Label = Annotated[str, Meta(min_length=1, max_length=_LONGEST_LABEL)]
_AbsolutePath = Annotated[str, Meta(pattern="^/")]
_Globs = Annotated[tuple[_AbsolutePath, ...], Meta(max_length=_MAX_GLOBS)]


class Settings(Struct, frozen=True, kw_only=True):
    """Checked settings. No text that this object makes of itself contains the password."""

    client_id: str
    mqtt_url: str = "mqtt://localhost:1883"
    mqtt_username: str | None = None
    mqtt_password: str | None = None
    mqtt_proxy: str | None = None
    mqtt_certificate: _AbsolutePath | None = None
    mqtt_key: _AbsolutePath | None = None
    bundle_file: _AbsolutePath | None = None
    ca_file: _AbsolutePath | None = None
    file_path: _AbsolutePath | None = None
    allowed_roots: tuple[_AbsolutePath, ...] = ()
    upload_hosts: tuple[str, ...] = ()
    upload_proxy: str | None = None
    state_dir: Path
    types: Annotated[dict[TypeName, _Globs], Meta(max_length=MAX_TYPES)] = {}
    labels: Annotated[dict[_Label, _Label], Meta(max_length=_MAX_LABELS)] = {}
    policy_file: _AbsolutePath | None = None
    timezone: Annotated[str, Meta(pattern=ZONE_PATTERN)] | None = None
    max_parallel_parts: Annotated[int, Meta(ge=1, le=MAX_WORKERS)] = 4
    max_bytes_per_second: Annotated[int, Meta(ge=1)] | None = None
    bytes_per_day: _Cap | None = None
    bytes_per_month: _Cap | None = None
    metered_bytes_per_day: _Cap | None = None
    metered_bytes_per_month: _Cap | None = None
    metered: Metered = "auto"
    min_disk_free: _Cap | None = None
    min_battery_percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    max_load: Annotated[float, Meta(gt=0, le=1000)] | None = None
    spool_max_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 10 * 2**30
    spool_max_percent: Annotated[int, Meta(ge=0, le=100)] = 25
    allow_after: tuple[Literal["delete", "move"], ...] = ()
    after_paths: _Globs = ()
    after_grace: Annotated[int, Meta(ge=0, le=604_800)] = 300
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
    def way(self) -> BrokerWay:
        """The way to the broker."""
        proxy = None if self.mqtt_proxy is None else HttpProxy.parse(self.mqtt_proxy)
        files = TlsFiles(self.ca_file, self.mqtt_certificate, self.mqtt_key)
        return BrokerWay(BrokerUrl.parse(self.mqtt_url), proxy, files)

    @property
    def upload_way(self) -> UploadWay:
        """The way to the object store."""
        proxy = None if self.upload_proxy is None else HttpProxy.parse(self.upload_proxy)
        return UploadWay(proxy, TlsFiles(self.ca_file))

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
        return [f"{name}={self._shown(name)}" for name in NAMES]

    def _shown(self, name: str) -> str:
        value = getattr(self, name.lower())
        if name in PROXIES:
            return "" if value is None else shown(value)
        if name in SECRETS:
            return _HIDDEN if value else ""
        if isinstance(value, tuple):
            return spelled(",".join(value))
        if isinstance(value, Mapping):
            pairs = ((key, text if isinstance(text, tuple) else (text,)) for key, text in value.items())
            return ",".join(f"{key}={text}" for key, texts in pairs for text in texts)
        return "" if value is None else spelled(str(value))


NAMES: Final = tuple(name.upper() for name in Settings.__struct_fields__)

PROXIES: Final = frozenset({"MQTT_PROXY", "UPLOAD_PROXY"})
"""URLs that may hold a password, which is never shown."""

SECRETS: Final = frozenset({"MQTT_PASSWORD", *PROXIES})
"""Never shown, and in no error; a file with one of them should be readable by few."""

PATHS: Final = frozenset(
    {
        "ALLOWED_ROOTS",
        "BUNDLE_FILE",
        "CA_FILE",
        "FILE_PATH",
        "METRICS_FILE",
        "MQTT_CERTIFICATE",
        "MQTT_KEY",
        "POLICY_FILE",
        "STATE_DIR",
    }
)
"""A path is bytes; all other settings are text."""

LISTS: Final = frozenset({"AFTER_PATHS", "ALLOWED_ROOTS", "ALLOW_AFTER", "UPLOAD_HOSTS"})
"""In a text, their entries have commas between them."""

CAPS: Final = ("BYTES_PER_DAY", "BYTES_PER_MONTH", "METERED_BYTES_PER_DAY", "METERED_BYTES_PER_MONTH")
"""Bytes that may be sent."""

NUMBERS: Final = frozenset(
    {
        "AFTER_GRACE",
        *CAPS,
        "MAX_PARALLEL_PARTS",
        "MAX_BYTES_PER_SECOND",
        "METRICS_PORT",
        "MIN_BATTERY_PERCENT",
        "MIN_DISK_FREE",
        "SPOOL_MAX_BYTES",
        "SPOOL_MAX_PERCENT",
    }
)
DECIMALS: Final = frozenset({"MAX_LOAD"})

_LABELS_LIMITS: Final = f"at most {_MAX_LABELS}, of at most {_LONGEST_LABEL} characters"

MUST: Final[Mapping[str, str]] = {
    "BUNDLE_FILE": "must be an absolute path",
    "CA_FILE": "must be an absolute path",
    "MQTT_CERTIFICATE": "must be an absolute path",
    "MQTT_KEY": "must be an absolute path",
    "FILE_PATH": "must be an absolute path",
    "ALLOWED_ROOTS": "must be absolute paths, with commas between them",
    "TYPES": f"must look like sales=/data/sales/*.csv,logs=/var/log/**/*.log, at most {MAX_TYPES} names",
    "TIMEZONE": "must be an IANA name, such as Europe/Berlin",
    "POLICY_FILE": "must be an absolute path",
    "LABELS": f"must look like site=berlin,model=pi4, {_LABELS_LIMITS}",
    "MAX_PARALLEL_PARTS": f"must be a whole number from 1 to {MAX_WORKERS}",
    "MAX_BYTES_PER_SECOND": "must be a whole number of at least 1 byte per second; leave it out for no limit",
    **dict.fromkeys(CAPS, "must be a whole number of bytes; leave it out for no cap"),
    "METERED": "must be auto, yes or no",
    "MIN_DISK_FREE": "must be a whole number of bytes",
    "MIN_BATTERY_PERCENT": "must be a whole number from 0 to 100",
    "MAX_LOAD": "must be a number above 0, such as 1.5: the load of one processor",
    "SPOOL_MAX_BYTES": "must be a whole number of bytes; 0 allows no copies",
    "SPOOL_MAX_PERCENT": "must be a whole number from 0 to 100",
    "ALLOW_AFTER": "must be delete, move, or both with a comma between them; leave it out to allow nothing",
    "AFTER_PATHS": f"must be absolute paths with wildcards, such as /data/**/*.csv, at most {_MAX_GLOBS}",
    "AFTER_GRACE": "must be a whole number of seconds, at most 604800",
    "METRICS_FILE": "must be an absolute path, such as /var/lib/prometheus/node-exporter/backhaul.prom",
    "METRICS_PORT": "must be a port of this device, from 1 to 65535",
    "LOG_LEVEL": f"must be one of {', '.join(get_args(LogLevel))}",
}
"""What to write instead, for each setting that the conversion checks."""

MUST_IN_TOML: Final[Mapping[str, str]] = {
    "ALLOWED_ROOTS": 'must be a list of absolute paths, such as ["/data"]',
    "ALLOW_AFTER": 'must be a list, such as ["delete", "move"]',
    "AFTER_PATHS": f'must be a list, such as ["/data/**/*.csv"], at most {_MAX_GLOBS}',
    "UPLOAD_HOSTS": 'must be a list, such as ["https://s3.example.com"]',
    "TYPES": f'must be a table of lists, such as sales = ["/data/sales/*.csv"], at most {MAX_TYPES} names',
    "LABELS": f'must be a table, such as site = "berlin", {_LABELS_LIMITS}',
}
"""The same, where a TOML file writes it in another way."""
