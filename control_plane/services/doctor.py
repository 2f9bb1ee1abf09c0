"""Checks the database and the object store, and reports what is wrong.

Rule: `--fix` adds one lifecycle rule and changes nothing else: other rules stay as they are, and multipart uploads of
unknown origin are only reported (protocol.md section 5).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from control_plane.services.errors import ObjectStoreForbids, ObjectStoreRefused, ServiceError
from control_plane.services.lifecycle_rule import RULE_DAYS, aborts_too_early, in_old_form, with_our_rule
from control_plane.services.maintenance import LITTER_AGE, rows_of
from control_plane.services.policy import MAX_SKEW, Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database
from control_plane.services.ports.object_store import MultipartInfo, ObjectStore, ObjectStoreCapabilities
from schemas.values import DigestName

MAX_SIZED: Final = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `fixed` is True when it failed at first and was repaired."""

    name: str
    fine: bool
    text: str
    fixed: bool = False


class Doctor:
    """Checks the neighbours one by one; an unreachable neighbour is a finding, not an error."""

    def __init__(self, database: Database, object_store: ObjectStore, clock: Clock, policy: Policy) -> None:
        self._database = database
        self._object_store = object_store
        self._clock = clock
        self._policy = policy
        self._prefix = f"{policy.base_path.strip('/')}/".lstrip("/")

    async def examine(self, *, fix: bool = False) -> list[Finding]:
        """All findings, in the order in which to repair them."""
        findings = [await self._checked("database", self._check_database)]
        findings += await self._checked_all("object store", self._check_object_store)
        if all(finding.fine for finding in findings if finding.name == "object store"):
            findings.append(await self._checked("lifecycle rule", lambda: self._lifecycle(fix=fix)))
            findings.append(await self._checked("multipart uploads", self._litter))
        return findings

    async def _checked(self, name: str, look: Callable[[], Any]) -> Finding:
        try:
            finding: Finding = await look()
        except ServiceError as error:
            return Finding(name, fine=False, text=str(error))
        return finding

    async def _checked_all(self, name: str, look: Callable[[], Any]) -> list[Finding]:
        try:
            findings: list[Finding] = await look()
        except ServiceError as error:
            return [Finding(name, fine=False, text=str(error))]
        return findings

    async def _check_database(self) -> Finding:
        await self._database.check()
        return Finding("database", fine=True, text="it can be written")

    async def _check_object_store(self) -> list[Finding]:
        await self._object_store.ensure_bucket()
        seen = await self._object_store.probe()
        return [
            Finding("object store", fine=True, text=f"bucket {self._object_store.bucket}"),
            _clock(seen),
            _proof(seen, seen.digest_for(self._policy.digest)),
            *(Finding("note", fine=True, text=note) for note in seen.notes),
        ]

    async def _lifecycle(self, *, fix: bool) -> Finding:
        name = "lifecycle rule"
        try:
            before = await self._object_store.lifecycle()
        except ObjectStoreForbids:
            return Finding(name, fine=True, text="not known: these credentials may not read it, and uploads need not")
        if before is None:
            text = "the object store has no lifecycle rules: what this control plane knows of is aborted by it"
            return Finding(name, fine=True, text=text)
        wanted = with_our_rule(before, self._prefix)
        if early := aborts_too_early(before, self._prefix):
            return Finding(name, fine=False, text=f"rule {early!r} aborts uploads that may still be under way")
        if before in (wanted, in_old_form(wanted, self._prefix)):
            return Finding(name, fine=True, text=f"what stays incomplete below {self._prefix} is aborted by the store")
        if not fix:
            text = f"nothing aborts what stays incomplete below {self._prefix}: `backhaul doctor --fix` adds a rule"
            return Finding(name, fine=False, text=text)
        return await self._mended(name, wanted)

    async def _mended(self, name: str, wanted: Mapping[str, Any]) -> Finding:
        forms = [wanted, in_old_form(wanted, self._prefix)]
        for form in forms:
            try:
                await self._object_store.set_lifecycle(form)
            except ObjectStoreRefused as error:
                if form is forms[-1] or isinstance(error, ObjectStoreForbids):
                    return Finding(name, fine=False, text=f"the store refuses the lifecycle rule: {error}")
                continue
            break
        kept = await self._object_store.lifecycle()
        # The object store may show more beside the rules than was written.
        if kept is None or kept["Rules"] not in [form["Rules"] for form in forms]:
            return Finding(name, fine=False, text="the store did not keep the rule as it was written")
        return Finding(name, fine=True, text=f"a rule was added: incomplete after {RULE_DAYS} days", fixed=True)

    async def _litter(self) -> Finding:
        try:
            found = await self._object_store.list_multipart(self._prefix)
        except ObjectStoreForbids:
            text = "not known: these credentials may not list them (s3:ListBucketMultipartUploads)"
            return Finding("multipart uploads", fine=True, text=text)
        old = [one for one in found if one.initiated_at < self._clock.now() - LITTER_AGE]
        rows = await self._database.read(lambda records: rows_of(records, old, self._policy.owner))
        foreign = [one for one in old if one.s3_key not in rows]
        if not foreign:
            return Finding("multipart uploads", fine=True, text=f"{len(found)} in flight, all of them known")
        return Finding("multipart uploads", fine=False, text=await self._reported(foreign))

    async def _reported(self, foreign: list[MultipartInfo]) -> str:
        sizes = [await self._object_store.multipart_size(one.s3_key, one.s3_upload_id) for one in foreign[:MAX_SIZED]]
        keys = ", ".join(one.s3_key for one in foreign[:3])
        return f"{len(foreign)} of unknown origin hold {sum(sizes)} bytes; they are never touched: {keys}"


def _clock(seen: ObjectStoreCapabilities) -> Finding:
    if seen.clock_skew is None:
        return Finding("clock", fine=True, text="the store does not tell its time")
    fine = abs(seen.clock_skew) <= MAX_SKEW
    return Finding("clock", fine=fine, text=f"{seen.clock_skew:+.0f} s between the store's clock and this one")


def _proof(seen: ObjectStoreCapabilities, digest: DigestName) -> Finding:
    grounds = [*(["ETags"] if seen.etag_is_md5 else []), *sorted(f"signed {name}" for name in seen.part_digests)]
    text = f"uploads are proven by {', '.join(grounds)}" if grounds else "nothing proves an upload beyond its size"
    return Finding("proof", fine=bool(grounds), text=f"{text}; URLs are bound by {digest}")
