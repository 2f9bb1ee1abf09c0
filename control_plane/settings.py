"""The settings of the control plane: the environment, and `.env` in the working folder (protocol.md section 7).

Rule: a wrong value or a misspelt name stops the program with one line that names it. An empty value counts as not set.
Secrets are `SecretStr`, so no log line and no traceback shows one.
"""

import os
import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from control_plane.domain.errors import SelectorError
from control_plane.domain.gate.gate import MAX_GRANT
from control_plane.domain.jobs.four_eyes import FourEyes
from control_plane.domain.selectors import parse
from schemas.broker_url import PORTS, BrokerUrl
from schemas.environment import is_loopback, is_utf8
from schemas.errors import SchemaError
from schemas.parts import MIN_CHUNK_SIZE
from schemas.setting_names import SettingNames
from schemas.signing.canonical import PUBLIC_KEY_SIZE, from_text
from schemas.topics import DEFAULT_ROOT, Topics

MIN_SECRET_SIZE: Final = 32
"""Bytes: an HMAC key shorter than its hash can be guessed (RFC 7518 section 3.2)."""

MAX_TOKEN_LIFETIME: Final = 36_500 * 86_400
"""Seconds: as long as history may be kept."""

DATABASE_NAME: Final = "backhaul.db"
"""The file of the database in `data_directory`."""

MAX_URL_EXPIRY: Final = 604_800
"""Seconds: the longest that Signature Version 4 allows."""

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?")
_KEY_LEVELS: Final = re.compile(r"[^/\x00-\x1f\x7f]+(/[^/\x00-\x1f\x7f]+)*")
_ENCRYPTION: Final = re.compile(r"auto|none|AES256|aws:kms(:[!-~]{1,500})?")
_MAX_BASE_PATH: Final = 512


class SettingsError(Exception):
    """The control plane cannot start with these settings; the text has one line for each wrong one."""


def _split(url: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        # DNS resolves a name in this form. A name without one (`a..b`) would raise UnicodeError only at connect.
        host = (parts.hostname or "").encode("idna")
        valid = parts.scheme in schemes and bool(host) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        message = f"must look like {example}"
        raise ValueError(message)
    return parts


def _bare(parts: SplitResult) -> bool:
    return not (parts.path.strip("/") or parts.query or parts.fragment)


def _mqtt_url(url: str) -> str:
    parts = _split(url, tuple(PORTS), "mqtt://host:1883, mqtts://host:8883 or wss://host/mqtt")
    if "@" in parts.netloc:
        message = "must not hold credentials: put them in MQTT_USERNAME and MQTT_PASSWORD"
        raise ValueError(message)
    if not _bare(parts) and parts.scheme not in {"ws", "wss"}:
        message = "must end after the port"
        raise ValueError(message)
    try:
        BrokerUrl.parse(url)
    except SchemaError as error:
        raise ValueError(str(error)) from error
    return url


def _endpoint(url: str) -> str:
    parts = _split(url, ("http", "https"), "https://host:port")
    if "@" in parts.netloc or not _bare(parts):
        message = "must be a scheme, a host and a port, and nothing more"
        raise ValueError(message)
    return url.rstrip("/")


def _collector(url: str) -> str:
    parts = _split(url, ("http", "https"), "http://host:4318")
    if "@" in parts.netloc or parts.query or parts.fragment:
        message = "must be a scheme, a host, a port and a path: credentials go to OTEL_EXPORTER_OTLP_HEADERS"
        raise ValueError(message)
    return url.rstrip("/")


def _issuer(url: str) -> str:
    parts = _split(url, ("http", "https"), "https://login.example.com/realms/fleet")
    if "@" in parts.netloc or parts.query or parts.fragment:
        message = "must be a scheme, a host, a port and a path, as the provider writes its issuer"
        raise ValueError(message)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        message = "must be https://: the keys that verify tokens are read there"
        raise ValueError(message)
    return url


def _database_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
        message = "must begin with sqlite:/// or postgresql://"
        raise ValueError(message)
    return url


def _bucket(name: str) -> str:
    if _BUCKET.fullmatch(name) is None:
        message = "must be 3 to 63 of a-z 0-9 . - beginning and ending with a letter or digit"
        raise ValueError(message)
    return name


def _base_path(path: str) -> str:
    levels = path.strip("/")
    if (
        _KEY_LEVELS.fullmatch(levels) is None
        or len(levels.encode()) > _MAX_BASE_PATH
        or {".", ".."} & {*levels.split("/")}
    ):
        message = "must be folder names joined by /"
        raise ValueError(message)
    return levels


def _encryption(name: str) -> str:
    if _ENCRYPTION.fullmatch(name) is None:
        message = "must be auto, none, AES256, aws:kms or aws:kms:KEY"
        raise ValueError(message)
    return name


def require_secret(secret: str) -> str:
    """Return `secret` if it is long enough to sign tokens; `ValueError` otherwise."""
    size = len(secret.encode())
    if size < MIN_SECRET_SIZE:
        message = f"must be at least {MIN_SECRET_SIZE} bytes long, not {size}"
        raise ValueError(message)
    return secret


def _secret(secret: SecretStr) -> SecretStr:
    require_secret(secret.get_secret_value())
    return secret


def _hosts(names: str) -> str:
    wrong = [name for name in _split_list(names) if _HOST.fullmatch(name) is None]
    if wrong:
        message = "must be host names without ports, joined by commas"
        raise ValueError(message)
    return names


def _split_list(names: str) -> list[str]:
    return _entries(names.lower())


def _networks(text: str) -> str:
    for one in _split_list(text):
        try:
            ip_network(one, strict=False)
        except ValueError:
            message = "must be networks such as 10.0.0.0/8, joined by commas"
            raise ValueError(message) from None
    return text


def _sha256(text: str) -> str:
    if _SHA256.fullmatch(text.lower()) is None:
        message = "must be the SHA-256 of a root of trust, 64 of 0-9 a-f, as `keys init` prints it"
        raise ValueError(message)
    return text.lower()


def _public_keys(text: str) -> str:
    try:
        for one in _entries(text):
            from_text(one, PUBLIC_KEY_SIZE)
    except SchemaError as error:
        message = "must be public keys of 43 characters, joined by commas"
        raise ValueError(message) from error
    return text


def _path_globs(text: str) -> str:
    if any(not one.startswith("/") for one in _entries(text)):
        message = "must be absolute paths or globs, joined by commas"
        raise ValueError(message)
    return text


def _selector(text: str) -> str:
    try:
        parse(text)
    except SelectorError as error:
        raise ValueError(str(error)) from error
    return text


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        message = "must be an absolute path"
        raise ValueError(message)
    return path


def _entries(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _root(root: str) -> str:
    return Topics(root).root


def data_directory() -> Path:
    """The folder for data of this user's programs (XDG Base Directory Specification); it may not exist yet.

    `SettingsError` for a user without a home folder, such as that of a container or of a service.
    """
    try:
        share = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    except RuntimeError as error:
        text = "this user has no home folder: set DATABASE_URL, or XDG_DATA_HOME"
        raise SettingsError(text) from error
    return share.absolute() / "backhaul"


Endpoint = Annotated[str, AfterValidator(_endpoint)]
Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
Upper = BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)


class Settings(BaseSettings):
    """Every setting of the control plane, checked. `load` makes one."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    server_host: str = "127.0.0.1"
    server_port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    allowed_hosts: Annotated[str, AfterValidator(_hosts)] | None = None
    trusted_proxies: Annotated[int, Field(ge=0, le=1)] = 0
    mqtt_url: Annotated[str, AfterValidator(_mqtt_url)] = "mqtt://localhost:1883"
    mqtt_username: str | None = None
    mqtt_password: SecretStr | None = None
    mqtt_certificate: Annotated[str, AfterValidator(_absolute)] | None = None
    mqtt_key: Annotated[str, AfterValidator(_absolute)] | None = None
    database_url: Annotated[SecretStr, AfterValidator(_database_url)] | None = None
    aws_region: str = "us-east-1"
    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    aws_endpoint: Endpoint | None = None
    s3_public_endpoint: Endpoint | None = None
    s3_bucket_name: Annotated[str, AfterValidator(_bucket)] = "file-download-system-uploads"
    s3_chunk_size: Annotated[int, Field(ge=MIN_CHUNK_SIZE, le=MAX_GRANT)] = MIN_CHUNK_SIZE
    s3_digest: Annotated[Literal["auto", "md5", "sha256", "crc32", "none"], Lower] = "auto"
    s3_encryption: Annotated[str, AfterValidator(_encryption)] = "auto"
    s3_addressing: Annotated[Literal["auto", "path", "virtual"], Lower] = "auto"
    base_s3_path: Annotated[str, AfterValidator(_base_path)] = "uploads"
    presigned_url_expiry: Annotated[int, Field(ge=1, le=MAX_URL_EXPIRY)] = 900
    client_timeout: Annotated[int, Field(ge=1, le=86_400)] = 300
    client_max_uploads: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    client_max_bytes: Annotated[int, Field(ge=1)] = 10 * 2**40
    max_job_files: Annotated[int, Field(ge=1, le=100_000_000)] = 1_000_000
    jwt_secret: Annotated[SecretStr, AfterValidator(_secret)] | None = None
    jwt_secret_previous: Annotated[SecretStr, AfterValidator(_secret)] | None = None
    oidc_issuer: Annotated[str, AfterValidator(_issuer)] | None = None
    oidc_audience: Annotated[str, Field(min_length=1, max_length=512)] = "backhaul"
    max_token_lifetime: Annotated[int, Field(ge=60, le=MAX_TOKEN_LIFETIME)] = 86_400
    four_eyes_bytes: Annotated[int, Field(ge=0)] | None = None
    four_eyes_clients: Annotated[int, Field(ge=0)] | None = None
    four_eyes_paths: Annotated[str, AfterValidator(_path_globs)] | None = None
    four_eyes_selector: Annotated[str, AfterValidator(_selector)] | None = None
    rate_limit: Annotated[int, Field(ge=0, le=10_000_000)] = 12_000
    require_reason: bool = False
    auth: Annotated[Literal["on", "off"], Lower] = "on"
    broker_access: Annotated[str, AfterValidator(_absolute)] | None = None
    broker_pid_file: Annotated[str, AfterValidator(_absolute)] | None = None
    device_mqtt_url: Annotated[str, AfterValidator(_mqtt_url)] | None = None
    device_ca_file: Annotated[str, AfterValidator(_absolute)] | None = None
    enroll: Annotated[Literal["on", "off"], Lower] = "off"
    audit_key_file: str | None = None
    signing_key_file: str | None = None
    require_signed: bool = False
    trust_root: Annotated[str, AfterValidator(_sha256)] | None = None
    operator_key_file: str | None = None
    device_keys_file: str | None = None
    audit_bucket: Annotated[str, AfterValidator(_bucket)] | None = None
    require_proof: bool = True
    receipts: Annotated[Literal["bucket", "database", "off"], Lower] = "bucket"
    receipt_keys: Annotated[str, AfterValidator(_public_keys)] | None = None
    webhook_networks: Annotated[str, AfterValidator(_networks)] | None = None
    history_days: Annotated[int, Field(ge=1, le=36_500)] = 90
    topic_root: Annotated[str, AfterValidator(_root)] = DEFAULT_ROOT
    otel_exporter_otlp_endpoint: Annotated[str, AfterValidator(_collector)] | None = None
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], Upper] = "INFO"

    @classmethod
    def load(cls, env: Mapping[str, str] | None = None, dotenv: Path = Path(".env")) -> Self:
        """Read `env` alone, or when it is None the environment over the file `dotenv`.

        `SettingsError` has one line for each setting that is wrong or misspelt.
        """
        given = {**_written(dotenv), **os.environ} if env is None else env
        _refuse(SPELLING.misspelt(given))
        _refuse([f"{name}: is not UTF-8" for name in NAMES if not is_utf8(given.get(name, ""))])
        # A file or a pasted line ends with a line break. One within would end a header, or a line of another protocol.
        values = {name: given[name].strip("\r\n") for name in NAMES if given.get(name)}
        _refuse([f"{name}: has a control character in it" for name, text in values.items() if _CONTROL.search(text)])
        try:
            return cls(**{name.lower(): text for name, text in values.items() if text})  # type: ignore[arg-type]
        except ValidationError as error:
            wrong = [_line(detail) for detail in error.errors()]
        # Raised outside of the `except`, so that its context does not hold the error with the values.
        raise SettingsError("\n".join(wrong))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` collected: it checks the names before the values."""
        return (init_settings,)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for name, partner in (
            ("mqtt_password", "mqtt_username"),
            ("mqtt_key", "mqtt_certificate"),
            *_KEY_PAIR,
            ("aws_session_token", "aws_access_key_id"),
        ):
            if getattr(self, name) is not None and getattr(self, partner) is None:
                message = f"{name.upper()}: needs {partner.upper()} beside it"
                raise ValueError(message)
        if self.mqtt_certificate is not None and not self.mqtt_address[2]:
            message = "MQTT_CERTIFICATE: needs mqtts:// or wss:// in MQTT_URL: no certificate is shown without TLS"
            raise ValueError(message)
        if self.four_eyes.is_on and self.jwt_secret is None:
            message = "FOUR_EYES_…: needs JWT_SECRET: without tokens every caller is the same person"
            raise ValueError(message)
        if self.oidc_issuer is not None and self.jwt_secret is None:
            message = "OIDC_ISSUER: needs JWT_SECRET beside it: the sessions of browsers are kept with it"
            raise ValueError(message)
        if self.jwt_secret_previous is not None and self.jwt_secret in {None, self.jwt_secret_previous}:
            message = "JWT_SECRET_PREVIOUS: needs another JWT_SECRET beside it: the one that takes its place"
            raise ValueError(message)
        if self.jwt_secret is None and self.auth == "on" and not is_loopback(self.server_host):
            message = (
                f"SERVER_HOST={self.server_host}: without JWT_SECRET only this machine may be served: "
                "set JWT_SECRET, or say AUTH=off, or use 127.0.0.1"
            )
            raise ValueError(message)
        if self.s3_digest == "none" and self.require_proof:
            # Each upload would fail after its last byte.
            message = "S3_DIGEST=none: proves nothing but the size: choose a digest, or say REQUIRE_PROOF=false"
            raise ValueError(message)
        return self

    @property
    def open_to_all(self) -> bool:
        """Whether requests need no token. The program warns of it at each start."""
        return self.jwt_secret is None

    @property
    def database(self) -> str:
        """The URL of the database: DATABASE_URL, else a file in `data_directory`, independent of the working folder."""
        if self.database_url is None:
            return f"sqlite:///{data_directory() / DATABASE_NAME}"
        return self.database_url.get_secret_value()

    @property
    def exposure(self) -> str | None:
        """The warning for an MQTT password that crosses a network unencrypted; the program shows it at each start."""
        password = self.mqtt_password and self.mqtt_password.get_secret_value()
        return BrokerUrl.parse(self.mqtt_url).exposure(password or None)

    @property
    def host_names(self) -> frozenset[str]:
        """The names under which REST is requested; an address is always accepted, but for 0.0.0.0."""
        own = {"localhost", self.server_host.lower()} - {"0.0.0.0"}  # noqa: S104 - refused, not listened on
        return frozenset({*own, *_split_list(self.allowed_hosts or "")})

    @property
    def webhook_network_list(self) -> tuple[str, ...]:
        """The networks beside the public internet that webhooks may be sent to."""
        return tuple(_split_list(self.webhook_networks or ""))

    @property
    def receipt_key_list(self) -> tuple[str, ...]:
        """Public keys with which control planes on this database signed receipts, beside the present one."""
        return tuple(_entries(self.receipt_keys or ""))

    @property
    def four_eyes(self) -> FourEyes:
        """Which jobs a second person must approve."""
        paths = tuple(_entries(self.four_eyes_paths or ""))
        selector = None if self.four_eyes_selector is None else parse(self.four_eyes_selector)
        return FourEyes(self.four_eyes_bytes, self.four_eyes_clients, paths, selector)

    @property
    def behind_proxy(self) -> bool:
        """Whether every caller of REST passes one proxy, which adds the caller's address to X-Forwarded-For."""
        return self.trusted_proxies > 0

    @property
    def mqtt_address(self) -> tuple[str, int, bool]:
        """The broker's host and port, and whether the connection uses TLS."""
        broker = BrokerUrl.parse(self.mqtt_url)
        return broker.host, broker.port, broker.secure


_KEY_PAIR: Final = (
    ("aws_access_key_id", "aws_secret_access_key"),
    ("aws_secret_access_key", "aws_access_key_id"),
)
NAMES: Final = tuple(name.upper() for name in Settings.model_fields)
"""Every setting of the control plane."""

_SECRETS: Final = frozenset(
    name.upper() for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
)


def _refuse(lines: Sequence[str]) -> None:
    if lines:
        raise SettingsError("\n".join(lines))


def _written(dotenv: Path) -> dict[str, str]:
    """The settings of the file; `SettingsError` when it has a name that is no setting."""
    try:
        source = DotEnvSettingsSource(Settings, env_file=dotenv, case_sensitive=True)
    except (OSError, UnicodeDecodeError) as error:
        text = f"{dotenv.absolute()} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}"
        raise SettingsError(text) from error
    _refuse([f"{dotenv.absolute()}: {line}" for line in SPELLING.unknown(source.env_vars)])
    return {name: value or "" for name, value in source.env_vars.items()}


def _line(detail: ErrorDetails) -> str:
    """One wrong setting in one line; with its value unless that is a secret."""
    if not detail["loc"]:
        return detail["msg"].removeprefix("Value error, ")
    name = str(detail["loc"][0]).upper()
    shown = name if name in _SECRETS or "@" in str(detail["input"]) else f"{name}={detail['input']}"
    return f"{shown}: {_requirement(detail)}"


def _requirement(detail: ErrorDetails) -> str:
    bounds = detail.get("ctx", {})
    match detail["type"]:
        case "int_parsing" | "int_type" | "int_from_float":
            return "must be a whole number"
        case "bool_parsing" | "bool_type":
            return "must be true or false"
        case "greater_than_equal":
            return f"must be at least {bounds['ge']}"
        case "less_than_equal":
            return f"must be at most {bounds['le']}"
        case "literal_error":
            return f"must be {bounds['expected']}"
        case _:
            return detail["msg"].removeprefix("Value error, ")


# Misspelt names.

_AGENT: Final = """
    AFTER_GRACE AFTER_PATHS ALLOWED_ROOTS ALLOW_AFTER BUNDLE_FILE BYTES_PER_DAY BYTES_PER_MONTH CA_FILE CLIENT_ID
    FILE_PATH LABELS LOG_LEVEL MAX_BYTES_PER_SECOND MAX_LOAD MAX_PARALLEL_PARTS METERED METERED_BYTES_PER_DAY
    METERED_BYTES_PER_MONTH METRICS_FILE METRICS_PORT MIN_BATTERY_PERCENT MIN_DISK_FREE MQTT_CERTIFICATE MQTT_KEY
    MQTT_PASSWORD MQTT_PROXY MQTT_URL MQTT_USERNAME SPOOL_MAX_BYTES SPOOL_MAX_PERCENT STATE_DIR TIMEZONE TOPIC_ROOT
    TYPES UPLOAD_HOSTS UPLOAD_PROXY POLICY_FILE
"""
AGENT_NAMES: Final = frozenset(_AGENT.split())
"""One `.env` may serve both sides, so these names are allowed in it."""

SPELLING: Final = SettingNames(
    NAMES,
    AGENT_NAMES,
    closeness=0.9,
    synonyms={"AWS_SECRET_KEY": "AWS_SECRET_ACCESS_KEY", "JWT_SECRET_KEY": "JWT_SECRET"},
)
