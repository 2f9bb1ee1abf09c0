"""The S3 bucket behind the port `ObjectStore`.

Rule: the only package that imports boto3 and botocore. None of their exceptions leaves it, and no error text contains
a presigned URL or a secret.
"""

from control_plane.adapters.object_store.probe import ProbeMemory
from control_plane.adapters.object_store.s3 import S3ObjectStore
from control_plane.adapters.object_store.settings import S3Settings

__all__ = ["ProbeMemory", "S3ObjectStore", "S3Settings"]
