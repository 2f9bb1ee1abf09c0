"""Checks of settings that no type expresses: what other modules will read from them later is read now.

Rule: each check raises `WrongSetting` with the setting's name; where it was written is added by the caller.
"""

from msgspec import ValidationError, convert

from device_agent.errors import SettingsError
from device_agent.settings.model import MUST, Settings
from device_agent.system_info import is_zone
from schemas.broker_url import BrokerUrl
from schemas.codec import decode, encode
from schemas.errors import SchemaError
from schemas.globs import Globs
from schemas.messages import Presence
from schemas.topics import require_client_id


class WrongSetting(SettingsError):
    """The value of `name` cannot be used; `reason` is what is wrong with it."""

    def __init__(self, *, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


def require_id(client_id: object) -> str:
    """The name of the device."""
    if not client_id:
        raise WrongSetting(name="CLIENT_ID", reason="is not set; it names this device, for example restaurant-1")
    if not isinstance(client_id, str):
        raise WrongSetting(name="CLIENT_ID", reason=f"{client_id!r} must be a text")
    try:
        return require_client_id(client_id)
    except SchemaError as error:
        raise WrongSetting(name="CLIENT_ID", reason=str(error)) from error


def require_usable(settings: Settings) -> None:
    """Each setting by itself, and that every presence has room for it."""
    try:
        _ = settings.hosts
    except SettingsError as error:
        raise WrongSetting(name="UPLOAD_HOSTS", reason=str(error).removeprefix("UPLOAD_HOSTS: ")) from error
    try:
        BrokerUrl.parse(settings.mqtt_url)
    except SchemaError as error:
        raise WrongSetting(name="MQTT_URL", reason=f"{error}; the password goes to MQTT_PASSWORD") from error
    for name, globs in settings.types.items():
        try:
            Globs(globs)
        except SchemaError as error:
            raise WrongSetting(name="TYPES", reason=f"{name}: {error}") from error
    try:
        Globs(settings.after_paths)
    except SchemaError as error:
        raise WrongSetting(name="AFTER_PATHS", reason=str(error)) from error
    if settings.timezone is not None and not is_zone(settings.timezone):
        raise WrongSetting(name="TIMEZONE", reason=f"{settings.timezone!r} {MUST['TIMEZONE']}")
    _require_presence(settings)
    try:
        _ = settings.topics
    except SchemaError as error:
        raise WrongSetting(name="TOPIC_ROOT", reason=str(error)) from error


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
            raise WrongSetting(name=name, reason=f"fits into no message: {error}") from error
