"""The three boto3 clients: one for calls, one for calls that must not be repeated, one that only signs.

Rule: SigV4 always (boto3 still presigns with SigV2 in us-east-1 by default, which binds no header), regional endpoints
(a presigned URL must not be answered with a redirect), checksums only where they are requested (object
stores other than Amazon's reject what newer SDKs add).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.credentials import Credentials

from control_plane.adapters.object_store.settings import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECTIONS: Final = 16
"""Threads of the adapter, and sockets that each client keeps."""

ATTEMPTS: Final = 4
CONNECT_TIMEOUT: Final = 5
READ_TIMEOUT: Final = 60
COMPLETE_TIMEOUT: Final = 330
"""S3 may take minutes to assemble an object (CompleteMultipartUpload, API reference); botocore's 60 s would leave a
completion in doubt that is merely slow."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The bucket through one client, which several threads may use at once."""

    client: "S3Client"
    name: str


@dataclass(frozen=True, slots=True)
class Clients:
    """All share one set of credentials."""

    calls: Bucket
    once: Bucket
    signer: "S3Client"
    credentials: Credentials | None
    ca_bundle: str | None = None

    def close(self) -> None:
        """Close the sockets."""
        for client in (self.calls.client, self.once.client, self.signer):
            client.close()


def build_clients(settings: S3Settings, addressing: str) -> Clients:
    """Clients for these settings that address the bucket as `path` or `virtual` host; makes no request."""
    session = boto3.session.Session(
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        aws_session_token=settings.session_token,
        region_name=settings.region,
    )

    def client(endpoint: str | None, attempts: int, timeout: int) -> "S3Client":
        config = _config(attempts, timeout, path_style=addressing == "path")
        return session.client("s3", endpoint_url=endpoint, config=config)

    return Clients(
        calls=Bucket(client(settings.endpoint, ATTEMPTS, READ_TIMEOUT), settings.bucket),
        # An unanswered Complete is checked by a HEAD, not repeated: a second one gets NoSuchUpload after the first has
        # succeeded (docs/reliability.md 0.9). A repeated Create leaves an upload that no row refers to.
        once=Bucket(client(settings.endpoint, 1, COMPLETE_TIMEOUT), settings.bucket),
        signer=client(settings.public_endpoint or settings.endpoint, 1, READ_TIMEOUT),
        credentials=session.get_credentials(),
        ca_bundle=session._session.get_config_variable("ca_bundle"),  # noqa: SLF001 - boto3 has no name for it
    )


def _config(attempts: int, read_timeout: int, *, path_style: bool) -> Config:
    style: Any = {
        "addressing_style": "path" if path_style else "virtual",
        "us_east_1_regional_endpoint": "regional",
    }
    return Config(
        signature_version="s3v4",
        s3=style,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=CONNECTIONS,
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=read_timeout,
        tcp_keepalive=True,
    )
