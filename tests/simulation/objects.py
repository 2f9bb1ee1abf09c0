"""A control plane's view of the object store: the port `ObjectStore` over the bucket, with answers that get lost.

Rule: a call may fail before its effect or after it, or take effect long after its timeout.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import IO, Any, Final, TypeVar

from control_plane.services.errors import ObjectStoreDown, ObjectStoreRefused
from control_plane.services.ports.object_store import Grantable, MultipartInfo, ObjectInfo, ObjectStoreCapabilities
from schemas.names import TOKEN_METADATA
from schemas.values import DigestName, PresignedPart
from tests.simulation.bucket import Bucket, Signed
from tests.simulation.contents import size_of
from tests.simulation.world import World

T = TypeVar("T")

LATENCY: Final = 0.03
OBJECT_LIMIT: Final = 60.0
"""Seconds that a URL lives under the fault `expiry`."""


class Objects:
    """One control plane's client of the bucket."""

    bucket = "bucket"

    def __init__(
        self, world: World, bucket: Bucket, capabilities: ObjectStoreCapabilities, now: Callable[[], float]
    ) -> None:
        self._world = world
        self._bucket = bucket
        self._capabilities = capabilities
        self._now = now
        self.reports: dict[str, bytes] = {}

    async def ensure_bucket(self) -> None:
        """The bucket always exists."""
        await self._call("ensure", lambda: None)

    async def probe(self) -> ObjectStoreCapabilities:
        """The capabilities drawn for this history, and how far this control plane's clock is off."""
        return await self._call(
            "probe", lambda: replace(self._capabilities, clock_skew=self._world.wall() - self._now())
        )

    async def create_multipart(
        self, s3_key: str, token: str, digest: DigestName, *, file_name: str | None = None
    ) -> str:
        """Open a multipart upload; when the answer is lost, its id is unknown."""
        assert digest
        return await self._call("create", lambda: self._bucket.create(s3_key, token), doubt=True)

    def presign_part(self, s3_key: str, s3_upload_id: str, part: Grantable, digest: DigestName) -> PresignedPart:
        """Bound to size and digest."""
        assert digest
        what = Signed(s3_key, s3_upload_id, part.part_number, part.size, part.digest, "", once=False, expires_at=0.0)
        return self._signed(what, part)

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
        """Bound to size, digest and token."""
        assert digest
        what = Signed(s3_key, None, part.part_number, part.size, part.digest, token, once=once, expires_at=0.0)
        return self._signed(what, part)

    def _signed(self, what: Signed, part: Grantable) -> PresignedPart:
        bound = Signed(
            what.s3_key,
            what.s3_upload_id,
            what.part_number,
            what.size,
            what.digest,
            what.token,
            what.once,
            self._now() + part.expires_in,
        )
        headers = {} if what.digest is None else {"content-md5": what.digest}
        return PresignedPart(part.part_number, self._bucket.sign(bound), headers)

    def presign_get(self, s3_key: str, expires_in: float) -> str:
        """A URL that no test reads."""
        return f"https://s3.sim/{s3_key}?get={expires_in}"

    def url_lifetime(self, wanted: float) -> float:
        """Seconds; short under the fault `expiry`."""
        return min(wanted, OBJECT_LIMIT) if "expiry" in self._world.faults else wanted

    async def complete(self, s3_key: str, s3_upload_id: str, etags: Mapping[int, str]) -> None:
        """Assemble the parts; the effect may come after the timeout."""
        world, given = self._world, dict(etags)
        world.note("plane", f"complete {s3_upload_id} with parts {sorted(given)}")
        if world.fails("doubt", 3.0):
            world.later(world.between(1.0, 40.0), self._late_complete, s3_key, s3_upload_id, given)
            await asyncio.sleep(1.0)
            message = "no answer to Complete"
            raise ObjectStoreDown(message)
        await self._call("complete", lambda: self._bucket.complete(s3_key, s3_upload_id, given), doubt=True)

    def _late_complete(self, s3_key: str, s3_upload_id: str, etags: dict[int, str]) -> None:
        try:
            self._bucket.complete(s3_key, s3_upload_id, etags)
        except ObjectStoreRefused:
            return

    async def head(self, s3_key: str) -> ObjectInfo | None:
        """Size, etag and token of the object; None when there is none."""
        return await self._call("head", lambda: self._info(s3_key))

    def _info(self, s3_key: str) -> ObjectInfo | None:
        stored = self._bucket.objects.get(s3_key)
        return (
            None if stored is None else ObjectInfo(size_of(stored.content), stored.etag, {TOKEN_METADATA: stored.token})
        )

    async def list_parts(self, s3_key: str, s3_upload_id: str) -> dict[int, str] | None:
        """Etags by part number, without quotes; None when the upload is gone."""
        return await self._call("list_parts", lambda: self._etags(s3_key, s3_upload_id))

    def _etags(self, s3_key: str, s3_upload_id: str) -> dict[int, str] | None:
        upload = self._bucket.in_flight(s3_key, s3_upload_id)
        return None if upload is None else {number: etag for number, (etag, _) in upload.parts.items()}

    async def abort(self, s3_key: str, s3_upload_id: str) -> None:
        """Nothing happens when it is gone."""
        await self._call("abort", lambda: self._bucket.abort(s3_key, s3_upload_id))

    async def put(self, s3_key: str, content: IO[bytes]) -> None:
        """Reports are kept apart: no history is about them."""
        await self._call("put", lambda: self.reports.update({s3_key: content.read()}))

    async def read(self, s3_key: str, most: int) -> bytes | None:
        """One of the reports."""
        return await self._call("read", lambda: None if (one := self.reports.get(s3_key)) is None else one[:most])

    async def delete(self, s3_key: str) -> None:
        """Nothing happens when it is gone."""
        await self._call("delete", lambda: self._bucket.delete(s3_key))

    async def list_multipart(self, prefix: str) -> list[MultipartInfo]:
        """Multipart uploads in flight."""
        return await self._call("list", lambda: self._in_flight(prefix))

    def _in_flight(self, prefix: str) -> list[MultipartInfo]:
        found = self._bucket.multiparts.items()
        return [MultipartInfo(one.s3_key, key, one.initiated_at) for key, one in found if one.s3_key.startswith(prefix)]

    async def multipart_size(self, s3_key: str, s3_upload_id: str) -> int:
        """Bytes in its parts."""
        upload = self._bucket.in_flight(s3_key, s3_upload_id)
        return 0 if upload is None else sum(size_of(content) for _, content in upload.parts.values())

    async def lifecycle(self) -> Mapping[str, Any]:
        """There are no rules."""
        return {}

    async def set_lifecycle(self, configuration: Mapping[str, Any]) -> None:
        """No test sets any."""

    async def close(self) -> None:
        """Nothing is held."""

    async def _call(self, name: str, effect: Callable[[], T], *, doubt: bool = False) -> T:
        world = self._world
        await asyncio.sleep(LATENCY)
        message = f"{name}: the object store did not answer"
        if world.now() < self._bucket.outage_until or world.fails("s3"):
            raise ObjectStoreDown(message, retry_after=world.between(0.0, 5.0))
        done = effect()
        await asyncio.sleep(LATENCY)
        if world.fails("s3") or (doubt and world.fails("doubt", 3.0)):
            raise ObjectStoreDown(message)
        return done
