"""The configuration of the object store.

Rule: plain values named after the settings they come from; `repr` never shows a secret.
"""

from dataclasses import dataclass, field
from typing import Final

from control_plane.services.errors import BadInput

PROBE_FOLDER: Final = ".backhaul-probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """One bucket and how to reach it.

    Without `access_key` boto3 uses its usual sources: environment, profile, instance role. `endpoint` is for object
    stores other than Amazon's. URLs for clients are signed for `public_endpoint`, for networks where clients reach the
    object store under another name than the control plane; it defaults to `endpoint`. `BadInput` when only one half of
    the credentials is set.
    """

    bucket: str
    region: str = "us-east-1"
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    public_endpoint: str | None = None
    base_path: str = "uploads"

    def __post_init__(self) -> None:
        if (self.access_key is None) != (self.secret_key is None):
            message = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together: set both or neither"
            raise BadInput(message)

    @property
    def probe_prefix(self) -> str:
        """The prefix of the keys of probe objects."""
        base = self.base_path.strip("/")
        return f"{base}/{PROBE_FOLDER}/" if base else f"{PROBE_FOLDER}/"
