"""The findings about the object store: whether uploads work there, what stays behind, and who else may read it.

Rule: a repair adds one lifecycle rule and changes nothing else: other rules stay as they are, and multipart uploads of
unknown origin are only reported (protocol.md section 5).
"""

from collections.abc import Mapping
from typing import Any, Final

from control_plane.services.diagnosis.findings import Finding, looked
from control_plane.services.errors import ObjectStoreForbids, ObjectStoreRefused
from control_plane.services.lifecycle_rule import RULE_DAYS, aborts_too_early, in_old_form, with_our_rule
from control_plane.services.maintenance import LITTER_AGE, rows_of
from control_plane.services.policy import MAX_SKEW, Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database
from control_plane.services.ports.diagnosis import BucketExaminer
from control_plane.services.ports.object_store import MultipartInfo, ObjectStore, ObjectStoreCapabilities
from schemas.values import DigestName

MAX_SIZED: Final = 200
CHECK_STORE: Final = "check AWS_ENDPOINT, S3_BUCKET_NAME and the credentials"
_RULE: Final = "lifecycle rule"
_LITTER: Final = "multipart uploads"


class StoreDoctor:
    """Checks the object store. Without `database` no multipart upload is known; without `bucket` who else may read."""

    def __init__(
        self,
        object_store: ObjectStore,
        clock: Clock,
        policy: Policy,
        *,
        database: Database | None = None,
        bucket: BucketExaminer | None = None,
    ) -> None:
        self._database = database
        self._object_store = object_store
        self._bucket = bucket
        self._clock = clock
        self._policy = policy
        self._prefix = f"{policy.base_path.strip('/')}/".lstrip("/")

    async def examine(self, *, fix: bool = False) -> list[Finding]:
        """Probe it as devices use it; then what else is known of it."""
        found = await looked("object store", self._probed, CHECK_STORE)
        if not all(finding.fine for finding in found if finding.name == "object store"):
            return found
        return [*found, *await self.beside(fix=fix)]

    async def beside(self, *, fix: bool = False) -> list[Finding]:
        """What no probe shows: who else may read the bucket, the lifecycle rule, forgotten multipart uploads."""
        found = await looked("bucket access", self._access)
        found += await looked(_RULE, lambda: self._lifecycle(fix=fix))
        if self._database is not None:
            database = self._database
            found += await looked(_LITTER, lambda: self._litter(database))
        return found

    async def _probed(self) -> list[Finding]:
        await self._object_store.ensure_bucket()
        seen = await self._object_store.probe()
        return self.judged(seen)

    def judged(self, seen: ObjectStoreCapabilities) -> list[Finding]:
        """The findings about the result of a probe."""
        text = f"bucket {self._object_store.bucket}: a PUT by a signed URL works from this host"
        return [
            Finding("object store", fine=True, text=text),
            _clock(seen),
            _proof(seen, seen.digest_for(self._policy.digest)),
            *(Finding("note", fine=True, text=note) for note in seen.notes),
        ]

    async def _access(self) -> list[Finding]:
        if self._bucket is None:
            return []
        seen = await self._bucket.exposure()
        name = "bucket access"
        remedy = "block public access to the bucket, and remove the policy or ACL that grants it"
        if seen.readable or seen.listable:
            what = " and ".join(
                word for word, is_so in (("list the bucket", seen.listable), ("read objects", seen.readable)) if is_so
            )
            return [Finding(name, fine=False, text=f"everyone may {what} without credentials", remedy=remedy)]
        if seen.policy_is_public:
            return [Finding(name, fine=False, text="the bucket has a public policy", remedy=remedy)]
        text = "nothing is readable without credentials" if seen.readable is False else "not known"
        rules = f"; it has {seen.cors_rules} CORS rules" if seen.cors_rules else ""
        cors = f"the page requests nothing of the object store{rules}"
        return [Finding(name, fine=True, text=text), Finding("CORS", fine=True, text=f"not needed: {cors}")]

    async def _lifecycle(self, *, fix: bool) -> list[Finding]:
        try:
            before = await self._object_store.lifecycle()
        except ObjectStoreForbids:
            return [
                Finding(_RULE, fine=True, text="not known: these credentials may not read it, and uploads need not")
            ]
        if before is None:
            text = "the object store has no lifecycle rules: what this control plane knows of is aborted by it"
            return [Finding(_RULE, fine=True, text=text)]
        wanted = with_our_rule(before, self._prefix)
        if early := aborts_too_early(before, self._prefix):
            text = f"rule {early!r} aborts uploads that may still be under way"
            return [Finding(_RULE, fine=False, text=text, remedy=f"raise its days to {RULE_DAYS}, or remove it")]
        if before in (wanted, in_old_form(wanted, self._prefix)):
            return [
                Finding(_RULE, fine=True, text=f"what stays incomplete below {self._prefix} is aborted by the store")
            ]
        if not fix:
            text = f"nothing aborts what stays incomplete below {self._prefix}"
            return [Finding(_RULE, fine=False, text=text, remedy="`backhaul doctor --fix` adds a rule")]
        return [await self._mended(wanted)]

    async def _mended(self, wanted: Mapping[str, Any]) -> Finding:
        forms = [wanted, in_old_form(wanted, self._prefix)]
        for form in forms:
            try:
                await self._object_store.set_lifecycle(form)
            except ObjectStoreRefused as error:
                if form is forms[-1] or isinstance(error, ObjectStoreForbids):
                    return Finding(_RULE, fine=False, text=f"the store refuses the lifecycle rule: {error}")
                continue
            break
        kept = await self._object_store.lifecycle()
        # The object store may show more beside the rules than was written.
        if kept is None or kept["Rules"] not in [form["Rules"] for form in forms]:
            return Finding(_RULE, fine=False, text="the store did not keep the rule as it was written")
        return Finding(_RULE, fine=True, text=f"a rule was added: incomplete after {RULE_DAYS} days", fixed=True)

    async def _litter(self, database: Database) -> list[Finding]:
        try:
            found = await self._object_store.list_multipart(self._prefix)
        except ObjectStoreForbids:
            text = "not known: these credentials may not list them (s3:ListBucketMultipartUploads)"
            return [Finding(_LITTER, fine=True, text=text)]
        old = [one for one in found if one.initiated_at < self._clock.now() - LITTER_AGE]
        rows = await database.read(lambda records: rows_of(records, old, self._policy.owner))
        foreign = [one for one in old if one.s3_key not in rows]
        if not foreign:
            return [Finding(_LITTER, fine=True, text=f"{len(found)} in flight, all of them known")]
        remedy = "abort them with the object store's own tools if nothing else uses this prefix"
        return [Finding(_LITTER, fine=False, text=await self._reported(foreign), remedy=remedy)]

    async def _reported(self, foreign: list[MultipartInfo]) -> str:
        sizes = [await self._object_store.multipart_size(one.s3_key, one.s3_upload_id) for one in foreign[:MAX_SIZED]]
        keys = ", ".join(one.s3_key for one in foreign[:3])
        return f"{len(foreign)} of unknown origin hold {sum(sizes)} bytes; they are never touched: {keys}"


def _clock(seen: ObjectStoreCapabilities) -> Finding:
    if seen.clock_skew is None:
        return Finding("clock", fine=True, text="the object store does not report its time")
    fine = abs(seen.clock_skew) <= MAX_SKEW
    text = f"{abs(seen.clock_skew):.0f} s between the store's clock and this one"
    return Finding("clock", fine=fine, text=text, remedy=None if fine else "set this machine's clock, by NTP")


def _proof(seen: ObjectStoreCapabilities, digest: DigestName) -> Finding:
    grounds = [*(["ETags"] if seen.etag_is_md5 else []), *sorted(f"signed {name}" for name in seen.part_digests)]
    text = f"uploads are proven by {', '.join(grounds)}" if grounds else "nothing proves an upload beyond its size"
    remedy = None if grounds else "use an object store that checks digests, or set REQUIRE_PROOF=false"
    return Finding("proof", fine=bool(grounds), text=f"{text}; URLs are bound by {digest}", remedy=remedy)
