"""Which names are those of settings, and which are nearly so.

Rule: names only. What a name is read for is `device_agent.settings.model`'s.
"""

from typing import Final

from device_agent.settings.model import NAMES
from schemas.setting_names import SettingNames

_CONTROL_PLANE: Final = """
    SERVER_HOST SERVER_PORT ALLOWED_HOSTS TRUSTED_PROXIES MQTT_URL MQTT_USERNAME MQTT_PASSWORD DATABASE_URL AWS_REGION
    AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_ENDPOINT S3_PUBLIC_ENDPOINT S3_BUCKET_NAME
    S3_CHUNK_SIZE S3_DIGEST S3_ENCRYPTION S3_ADDRESSING BASE_S3_PATH PRESIGNED_URL_EXPIRY CLIENT_TIMEOUT JWT_SECRET AUTH
    CLIENT_MAX_UPLOADS CLIENT_MAX_BYTES MAX_JOB_FILES WEBHOOK_NETWORKS MAX_TOKEN_LIFETIME REQUIRE_PROOF HISTORY_DAYS
    OTEL_EXPORTER_OTLP_ENDPOINT TOPIC_ROOT LOG_LEVEL
"""
CONTROL_PLANE_NAMES: Final = frozenset(_CONTROL_PLANE.split())
"""One `.env` may serve both sides, so these names are allowed in it."""

SPELLING: Final = SettingNames(NAMES, CONTROL_PLANE_NAMES, closeness=0.88)
