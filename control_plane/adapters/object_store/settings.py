"""The configuration of the object store.

Rule: plain values named after the settings they come from; `repr` never shows a secret.
"""

from dataclasses import dataclass, field
from typing import Final

from control_plane.services.errors import BadInput

PROBE_FOLDER: Final = ".backhaul-probe"
ALGORITHM_HEADER: Final = "x-amz-server-side-encryption"
KEY_HEADER: Final = "x-amz-server-side-encryption-aws-kms-key-id"
AUTO: Final = "auto"
NONE: Final = "none"
KMS: Final = "aws:kms"


def encryption_headers(encryption: str | None) -> dict[str, str]:
    """The headers that request encryption at rest: `AES256`, `aws:kms` or `aws:kms:KEY`; None requests nothing.

    >>> encryption_headers("aws:kms:alias/backhaul")[KEY_HEADER]
    'alias/backhaul'
    """
    if encryption is None:
        return {}
    key = encryption.removeprefix(f"{KMS}:") if encryption.startswith(f"{KMS}:") else ""
    return {ALGORITHM_HEADER: KMS, KEY_HEADER: key} if key else {ALGORITHM_HEADER: encryption}


def encryption_options(encryption: str | None) -> dict[str, str]:
    """The same as arguments of boto3.

    >>> encryption_options("AES256")
    {'ServerSideEncryption': 'AES256'}
    """
    names = {ALGORITHM_HEADER: "ServerSideEncryption", KEY_HEADER: "SSEKMSKeyId"}
    return {names[name]: value for name, value in encryption_headers(encryption).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """One bucket and how to reach it.

    Without `access_key` boto3 uses its usual sources: environment, profile, instance role. `endpoint` is for object
    stores other than Amazon's. URLs for clients are signed for `public_endpoint`, for networks where clients reach the
    object store under another name than the control plane; it defaults to `endpoint`. `encryption` is `auto`, `none`
    or what `encryption_headers` takes; `addressing` is `auto`, `path` or `virtual`. Unless `digest` is `none`, an
    object store that takes no digest is not usable. `BadInput` when only one half of the credentials is set.
    """

    bucket: str
    region: str = "us-east-1"
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    public_endpoint: str | None = None
    base_path: str = "uploads"
    encryption: str = AUTO
    addressing: str = AUTO
    digest: str = AUTO

    def __post_init__(self) -> None:
        if (self.access_key is None) != (self.secret_key is None):
            message = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together: set both or neither"
            raise BadInput(message)

    @property
    def uploads_prefix(self) -> str:
        """The prefix of the keys of uploads."""
        return f"{self.base_path.strip('/')}/".lstrip("/")

    @property
    def probe_prefixes(self) -> tuple[str, ...]:
        """Where a probe may put its objects: outside the prefix of the uploads first, which others may watch."""
        base = self.base_path.strip("/")
        return (f"{PROBE_FOLDER}/", *([f"{base}/{PROBE_FOLDER}/"] if base else []))
