"""Secrets and signatures of webhook messages, by the specification Standard Webhooks.

Rule: the only module that imports the library `standardwebhooks`. A secret leaves this program once, when it is made.
"""

import base64
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from standardwebhooks.webhooks import Webhook as Signer

_SIZE: Final = 32
"""Bytes of a secret; the specification requires 24 to 64."""


def new_secret() -> str:
    """A random secret, in the form of the specification."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SIZE)).decode()


def headers_of(secret: str, message_id: str, body: str, now: float) -> Mapping[str, str]:
    """The headers that identify and sign one message, sent at `now` (s since the epoch)."""
    at = datetime.fromtimestamp(int(now), UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": Signer(secret).sign(message_id, at, body),
    }
