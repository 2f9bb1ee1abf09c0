"""The S3 bucket behind the port `ObjectStore`.

Rule: the one package that imports boto3 and botocore. No exception of theirs leaves it, and no error text carries a
presigned URL or a secret.
"""

from control_plane.adapters.object_store.settings import S3Settings
from control_plane.adapters.object_store.store import S3ObjectStore

__all__ = ["S3ObjectStore", "S3Settings"]
