"""The port `ObjectStore` over boto3: blocking calls in a thread pool, signing inline.

Rule: this class decides nothing; it calls and translates errors.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from control_plane.adapters.object_store import buckets, exposure, lifecycle, multipart
from control_plane.adapters.object_store.clients import CONNECTIONS, build_clients
from control_plane.adapters.object_store.errors import translated
from control_plane.adapters.object_store.heads import Heads
from control_plane.adapters.object_store.probe import Probe, ProbeMemory
from control_plane.adapters.object_store.settings import AUTO, S3Settings
from control_plane.adapters.object_store.signing import Signer
from control_plane.services.errors import ObjectStoreForbids, ObjectStoreRefused, ServiceError
from control_plane.services.ports.diagnosis import BucketFacts
from control_plane.services.ports.object_store import Grantable, MultipartInfo, ObjectInfo, ObjectStoreCapabilities
from schemas.names import NAME_METADATA, TOKEN_METADATA
from schemas.values import DigestName, PresignedPart

T = TypeVar("T")

AMAZON: Final = "Amazon S3"
PATH: Final = "path"
VIRTUAL: Final = "virtual"


class S3ObjectStore:
    """One bucket. The constructor makes no request; how the bucket is used is what the last `probe` found.

    With `memory` the first probe may be one of the last hour; a later one is requested because something changed.
    """

    def __init__(self, settings: S3Settings, memory: ProbeMemory | None = None) -> None:
        self.bucket = settings.bucket
        self._settings = settings
        self._memory = memory
        self._endpoint = settings.endpoint or AMAZON
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="object-store")
        self._found = ObjectStoreCapabilities()
        self._is_probed = False
        self._notes: tuple[str, ...] = ()
        addressing = settings.addressing
        if addressing == AUTO:
            addressing = PATH if settings.endpoint else VIRTUAL
        self._connect(addressing)

    def _connect(self, addressing: str) -> None:
        """Address the bucket as `path` or `virtual` host from now on."""
        settings, self._addressing = self._settings, addressing
        with translated("AWS_ENDPOINT, S3_PUBLIC_ENDPOINT or AWS_REGION is wrong", self._endpoint):
            self._clients = build_clients(settings, addressing)
        self._signer = Signer(self._clients.signer, settings.bucket, self._clients.credentials)
        self._heads = Heads(self._clients.calls, self._clients.credentials, self._clients.ca_bundle)

    async def ensure_bucket(self) -> None:
        if self._recalled() is None:
            self._notes = await self._by_either_address("CreateBucket", self._ensured)

    async def probe(self) -> ObjectStoreCapabilities:
        if (recalled := self._recalled()) is not None:
            addressing, self._found = recalled
            self._is_probed = True
            if addressing != self._addressing:
                self._connect(addressing)
            return self._found
        self._found = await self._by_either_address(
            "the probe of the object store", self._probed, self._ensured_and_probed
        )
        self._is_probed = True
        if self._memory is not None:
            self._memory.keep(self._settings, self._access_key, self._addressing, self._found)
        return self._found

    def forget_probe(self) -> None:
        """Forget the result that `memory` keeps."""
        if self._memory is not None:
            self._memory.forget(self._settings, self._access_key)

    async def create_multipart(
        self, s3_key: str, token: str, digest: DigestName, *, file_name: str | None = None
    ) -> str:
        once, encryption, metadata = self._clients.once, self._found.asks_encryption, _metadata(token, file_name)
        return await self._call(
            "CreateMultipartUpload",
            lambda: multipart.create(once, s3_key, metadata=metadata, digest=digest, encryption=encryption),
        )

    def presign_part(self, s3_key: str, s3_upload_id: str, part: Grantable, digest: DigestName) -> PresignedPart:
        """`BadInput` when the digest is malformed."""
        with translated("presigning UploadPart", self._endpoint):
            return self._signer.part(s3_key, s3_upload_id, part, digest)

    def presign_object(
        self,
        s3_key: str,
        token: str,
        part: Grantable,
        digest: DigestName,
        *,
        once: bool,
        file_name: str | None = None,
    ) -> PresignedPart:
        metadata, encryption = _metadata(token, file_name), self._found.asks_encryption
        with translated("presigning PutObject", self._endpoint):
            return self._signer.object(s3_key, metadata, part, digest, once=once, encryption=encryption)

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

        Any ingress can send a 404 for a HEAD, and a missing object restarts its upload. Where the probe saw a 403 for a
        missing object, a 403 is confirmed in the same way: `AccessDenied` is then a missing object, and no other code.
        """
        denied = self._found.missing_is_forbidden
        try:
            if (info := await self._call("HeadObject", lambda: self._heads.head(s3_key))) is not None:
                return info
        except ObjectStoreForbids:
            if not denied:
                raise
        calls = self._clients.calls
        if await self._call("GetObject", lambda: buckets.is_missing(calls, s3_key, or_denied=denied)):
            return None
        return await self._call("HeadObject", lambda: buckets.head(calls, s3_key))

    async def list_parts(self, s3_key: str, s3_upload_id: str) -> dict[int, str] | None:
        calls = self._clients.calls
        return await self._call("ListParts", lambda: multipart.list_parts(calls, s3_key, s3_upload_id))

    async def abort(self, s3_key: str, s3_upload_id: str) -> None:
        calls = self._clients.calls
        await self._call("AbortMultipartUpload", lambda: multipart.abort(calls, s3_key, s3_upload_id))

    async def put(self, s3_key: str, content: IO[bytes]) -> None:
        calls, encryption = self._clients.calls, self._found.asks_encryption
        await self._call("PutObject", lambda: buckets.put(calls, s3_key, content, encryption=encryption))

    async def read(self, s3_key: str, most: int) -> bytes | None:
        calls, denied = self._clients.calls, self._found.missing_is_forbidden
        return await self._call("GetObject", lambda: buckets.read(calls, s3_key, most, or_denied=denied))

    async def delete(self, s3_key: str) -> None:
        await self._call("DeleteObject", lambda: buckets.delete(self._clients.calls, s3_key))

    async def list_multipart(self, prefix: str) -> list[MultipartInfo]:
        calls = self._clients.calls
        return await self._call("ListMultipartUploads", lambda: multipart.list_uploads(calls, prefix))

    async def multipart_size(self, s3_key: str, s3_upload_id: str) -> int:
        calls = self._clients.calls
        return await self._call("ListParts", lambda: multipart.size(calls, s3_key, s3_upload_id))

    async def lifecycle(self) -> Mapping[str, Any] | None:
        """Without rules when there is no configuration."""
        return await self._call("GetBucketLifecycleConfiguration", lambda: lifecycle.read(self._clients.calls))

    async def set_lifecycle(self, configuration: Mapping[str, Any]) -> None:
        calls, given = self._clients.calls, dict(configuration)
        await self._call("PutBucketLifecycleConfiguration", lambda: lifecycle.write(calls, given))

    async def exposure(self) -> BucketFacts:
        calls, settings, addressing = self._clients.calls, self._settings, self._addressing
        return await self._call("a look at the bucket's access", lambda: exposure.look(calls, settings, addressing))

    async def close(self) -> None:
        """A call that is under way ends in its thread."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._heads.close()
        self._clients.close()

    def _ensured(self) -> tuple[str, ...]:
        return buckets.ensure(self._clients.calls, self._settings.region, self._settings.uploads_prefix)

    def _probed(self) -> ObjectStoreCapabilities:
        return Probe(self._settings, self._clients, notes=self._notes).run()

    def _ensured_and_probed(self) -> ObjectStoreCapabilities:
        """The probe by another form of address, by which nothing has looked for the bucket yet."""
        self._notes = self._ensured()
        return self._probed()

    @property
    def _access_key(self) -> str | None:
        credentials = self._clients.credentials
        return None if credentials is None else credentials.access_key

    def _recalled(self) -> tuple[str, ObjectStoreCapabilities] | None:
        if self._memory is None or self._is_probed:
            return None
        return self._memory.recall(self._settings, self._access_key)

    async def _by_either_address(self, what: str, work: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """What `work` returns; when it is refused, that of `again` with the bucket's name in the host, which is kept.

        Only with S3_ADDRESSING=auto, and until a probe was good: from then on URLs are signed for devices. The error is
        that of the first form.
        """
        try:
            return await self._call(what, work)
        except ObjectStoreRefused:
            tries = self._settings.addressing == AUTO and self._addressing == PATH and self._has_host_name
            if not tries or self._is_probed:
                raise
            first = self._clients, self._signer, self._heads
            self._connect(VIRTUAL)
            clients, _, heads = first
            try:
                return await self._call(what, again or work)
            except ServiceError:
                clients, heads = self._clients, self._heads
                self._clients, self._signer, self._heads = first
                self._addressing = PATH
            finally:
                # Of the form that is not kept.
                heads.close()
                clients.close()
            raise

    @property
    def _has_host_name(self) -> bool:
        """Whether the endpoint is a name, before which a bucket's name can stand."""
        host = urlsplit(self._endpoint).hostname or ""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return True
        return False

    async def _call(self, what: str, work: Callable[[], T]) -> T:
        def guarded() -> T:
            with translated(what, self._endpoint):
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded)


def _metadata(token: str, file_name: str | None) -> dict[str, str]:
    """The metadata of an upload's object; a file name is spelled in ASCII, as in a URL."""
    return {TOKEN_METADATA: token, **({} if file_name is None else {NAME_METADATA: quote(file_name, safe="")})}
