"""What the adapter must be told about the bucket.

Rule: plain values named after the settings they come from (protocol.md section 7); secrets are never shown.
"""

from dataclasses import dataclass, field
from typing import Final

from control_plane.services.errors import BadInput

PROBE_FOLDER: Final = ".backhaul-probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """One bucket and how to reach it.

    Without `access_key` boto3 looks where it always does: environment, profile, instance role. `endpoint` is for
    stores other than Amazon's; calls go there. Clients' URLs are signed for `public_endpoint`, which is for networks
    where clients reach the store under another name than the control plane; without it they are the same. `BadInput`
    when half of the credentials is missing.
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
        """What the keys of probe objects begin with."""
        base = self.base_path.strip("/")
        return f"{base}/{PROBE_FOLDER}/" if base else f"{PROBE_FOLDER}/"
