"""The names that are nearly those of settings: a misspelt name stops the program instead of being ignored.

Rule: pure functions over names. What a name is read for is `device_agent.settings.model`'s.
"""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from device_agent.settings.model import NAMES

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
