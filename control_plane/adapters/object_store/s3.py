"""The port `ObjectStore` over boto3: blocking calls in a thread pool, signing inline.

Rule: this class decides nothing; it calls and translates errors.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from control_plane.adapters.object_store import buckets, lifecycle, multipart
from control_plane.adapters.object_store.clients import CONNECTIONS, build_clients
from control_plane.adapters.object_store.errors import translated
from control_plane.adapters.object_store.heads import Heads
from control_plane.adapters.object_store.probe import Probe
from control_plane.adapters.object_store.settings import S3Settings
from control_plane.adapters.object_store.signing import Signer
from control_plane.services.ports.object_store import Grantable, MultipartInfo, ObjectInfo, ObjectStoreCapabilities
from schemas.values import DigestName, PresignedPart

T = TypeVar("T")

AMAZON: Final = "Amazon S3"


class S3ObjectStore:
    """One bucket. The constructor makes no request; it requests encryption once `probe` found it necessary."""

    def __init__(self, settings: S3Settings) -> None:
        self.bucket = settings.bucket
        self._settings = settings
        self._endpoint = settings.endpoint or AMAZON
        with translated("AWS_ENDPOINT, S3_PUBLIC_ENDPOINT or AWS_REGION is wrong", self._endpoint):
            self._clients = build_clients(settings)
        self._signer = Signer(self._clients.signer, settings.bucket, self._clients.credentials)
        self._heads = Heads(self._clients.calls, self._clients.credentials, self._clients.ca_bundle)
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="object-store")
        self._encrypt = False
        self._notes: tuple[str, ...] = ()

    async def ensure_bucket(self) -> None:
        region, calls = self._settings.region, self._clients.calls
        self._notes = await self._call("CreateBucket", lambda: buckets.ensure(calls, region))

    async def probe(self) -> ObjectStoreCapabilities:
        probe = Probe(self._settings, self._clients, notes=self._notes)
        capabilities = await self._call("the probe of the object store", probe.run)
        self._encrypt = probe.must_ask_to_encrypt
        return capabilities

    async def create_multipart(self, s3_key: str, token: str, digest: DigestName) -> str:
        once, encrypt = self._clients.once, self._encrypt
        return await self._call(
            "CreateMultipartUpload",
            lambda: multipart.create(once, s3_key, token=token, digest=digest, encrypt=encrypt),
        )

    def presign_part(self, s3_key: str, s3_upload_id: str, part: Grantable, digest: DigestName) -> PresignedPart:
        """`BadInput` when the digest is malformed."""
        with translated("presigning UploadPart", self._endpoint):
            return self._signer.part(s3_key, s3_upload_id, part, digest)

    def presign_object(
        self, s3_key: str, token: str, part: Grantable, digest: DigestName, *, once: bool
    ) -> PresignedPart:
        with translated("presigning PutObject", self._endpoint):
            return self._signer.object(s3_key, token, part, digest, once=once, encrypt=self._encrypt)

    def presign_get(self, s3_key: str, expires_in: float) -> str:
        with translated("presigning GetObject", self._endpoint):
            return self._signer.get(s3_key, expires_in)

    def url_lifetime(self, wanted: float) -> float:
        """The least of `wanted`, the rest of the credentials' life, and seven days."""
        return self._signer.lifetime(wanted)

    async def complete(self, s3_key: str, s3_upload_id: str, etags: Mapping[int, str]) -> None:
        """One request, never repeated here: any error leaves the outcome in doubt."""
        once = self._clients.once
        await self._call("CompleteMultipartUpload", lambda: multipart.complete(once, s3_key, s3_upload_id, etags))

    async def head(self, s3_key: str) -> ObjectInfo | None:
        """A 404 is confirmed by a GET: its response contains the error code.

        Any ingress can send a 404 for a HEAD, and a missing object restarts its upload.
        """
        info = await self._call("HeadObject", lambda: self._heads.head(s3_key))
        if info is not None:
            return info
        calls = self._clients.calls
        if await self._call("GetObject", lambda: buckets.is_missing(calls, s3_key)):
            return None
        return await self._call("HeadObject", lambda: buckets.head(calls, s3_key))

    async def list_parts(self, s3_key: str, s3_upload_id: str) -> dict[int, str] | None:
        calls = self._clients.calls
        return await self._call("ListParts", lambda: multipart.list_parts(calls, s3_key, s3_upload_id))

    async def abort(self, s3_key: str, s3_upload_id: str) -> None:
        calls = self._clients.calls
        await self._call("AbortMultipartUpload", lambda: multipart.abort(calls, s3_key, s3_upload_id))

    async def delete(self, s3_key: str) -> None:
        await self._call("DeleteObject", lambda: buckets.delete(self._clients.calls, s3_key))

    async def list_multipart(self, prefix: str) -> list[MultipartInfo]:
        calls = self._clients.calls
        return await self._call("ListMultipartUploads", lambda: multipart.list_uploads(calls, prefix))

    async def multipart_size(self, s3_key: str, s3_upload_id: str) -> int:
        calls = self._clients.calls
        return await self._call("ListParts", lambda: multipart.size(calls, s3_key, s3_upload_id))

    async def lifecycle(self) -> Mapping[str, Any]:
        """Without rules when there is no configuration."""
        return await self._call("GetBucketLifecycleConfiguration", lambda: lifecycle.read(self._clients.calls))

    async def set_lifecycle(self, configuration: Mapping[str, Any]) -> None:
        calls, given = self._clients.calls, dict(configuration)
        await self._call("PutBucketLifecycleConfiguration", lambda: lifecycle.write(calls, given))

    async def close(self) -> None:
        """A call that is under way ends in its thread."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._heads.close()
        self._clients.close()

    async def _call(self, what: str, work: Callable[[], T]) -> T:
        def guarded() -> T:
            with translated(what, self._endpoint):
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded)
