"""Checks the database and the object store, and reports what is wrong.

Rule: `--fix` adds one lifecycle rule and changes nothing else: other rules stay as they are, and multipart uploads of
unknown origin are only reported (protocol.md section 5).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from control_plane.domain.uploads.model import MAX_DEADLINE
from control_plane.services.errors import ObjectStoreRefused, ServiceError
from control_plane.services.maintenance import LITTER_AGE, rows_of
from control_plane.services.policy import DAY, MAX_SKEW, Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database
from control_plane.services.ports.object_store import MultipartInfo, ObjectStore, ObjectStoreCapabilities

RULE_ID: Final = "backhaul-abort-incomplete-uploads"
RULE_DAYS: Final = int(MAX_DEADLINE / DAY) + 1
"""An upload lives until its deadline at most; a day later its parts are of no use."""

MAX_SIZED: Final = 200

Configuration = Mapping[str, Any]


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
            _proof(seen),
        ]

    async def _lifecycle(self, *, fix: bool) -> Finding:
        name, before = "lifecycle rule", await self._object_store.lifecycle()
        wanted = with_our_rule(before, self._prefix)
        if early := aborts_too_early(before, self._prefix):
            return Finding(name, fine=False, text=f"rule {early!r} aborts uploads that may still be under way")
        if wanted == before:
            return Finding(name, fine=True, text=f"what stays incomplete below {self._prefix} is aborted by the store")
        if not fix:
            text = f"nothing aborts what stays incomplete below {self._prefix}: `backhaul doctor --fix` adds a rule"
            return Finding(name, fine=False, text=text)
        try:
            await self._object_store.set_lifecycle(wanted)
            kept = await self._object_store.lifecycle()
        except ObjectStoreRefused as error:
            return Finding(name, fine=False, text=f"the store takes no lifecycle rules: {error}")
        if with_our_rule(kept, self._prefix) != kept:
            return Finding(name, fine=False, text="the store did not keep the rule: it knows no lifecycle rules")
        return Finding(name, fine=True, text=f"a rule was added: incomplete after {RULE_DAYS} days", fixed=True)

    async def _litter(self) -> Finding:
        found = await self._object_store.list_multipart(self._prefix)
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


def with_our_rule(configuration: Configuration, prefix: str) -> Configuration:
    """The configuration with our rule; equal to `configuration` when it has the rule already."""
    ours = {
        "ID": RULE_ID,
        "Filter": {"Prefix": prefix},
        "Status": "Enabled",
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": RULE_DAYS},
    }
    rules = list(configuration["Rules"])
    places = [at for at, rule in enumerate(rules) if rule.get("ID") == RULE_ID]
    if places:
        rules[places[0]] = ours
    else:
        rules.append(ours)
    return {**configuration, "Rules": rules}


def aborts_too_early(configuration: Configuration, prefix: str) -> str | None:
    """The id of another rule that aborts our uploads before their deadline can have passed; None without one."""
    for rule in configuration["Rules"]:
        days = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation", RULE_DAYS)
        where = rule.get("Filter", {}).get("Prefix", rule.get("Prefix", ""))
        covers = prefix.startswith(where) or where.startswith(prefix)
        if rule.get("Status") == "Enabled" and rule.get("ID") != RULE_ID and covers and days < RULE_DAYS:
            return str(rule.get("ID", "without an id"))
    return None


def _clock(seen: ObjectStoreCapabilities) -> Finding:
    if seen.clock_skew is None:
        return Finding("clock", fine=True, text="the store does not tell its time")
    fine = abs(seen.clock_skew) <= MAX_SKEW
    return Finding("clock", fine=fine, text=f"{seen.clock_skew:+.0f} s between the store's clock and this one")


def _proof(seen: ObjectStoreCapabilities) -> Finding:
    grounds = [*(["ETags"] if seen.etag_is_md5 else []), *sorted(f"signed {name}" for name in seen.part_digests)]
    text = f"uploads are proven by {', '.join(grounds)}" if grounds else "nothing proves an upload beyond its size"
    return Finding("proof", fine=bool(grounds), text=text)
