"""The probe: which prefix, endpoint and encryption work, and what the object store does there.

Rule: an object store is usable when a multipart upload by URLs like those of devices ends in an object with its token.
Everything else is a capability, or a note.
"""

import secrets
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from control_plane.adapters.object_store.clients import CONNECTIONS, Clients
from control_plane.adapters.object_store.probe.judgement import Judgement
from control_plane.adapters.object_store.probe.litter import Litter
from control_plane.adapters.object_store.probe.puts import NoAnswer, Puts
from control_plane.adapters.object_store.probe.trial import (
    BODY,
    NotVisible,
    Place,
    Seen,
    both_ways,
    digest_of,
    run_trial,
)
from control_plane.adapters.object_store.settings import AUTO, KMS, NONE, PROBE_FOLDER, S3Settings
from control_plane.adapters.object_store.signing import Signer
from control_plane.services.errors import ObjectStoreDown
from control_plane.services.ports.object_store import ObjectStoreCapabilities
from control_plane.services.uploads.checksums import multipart_etag, object_etag
from schemas.values import DigestName

SLOTS: Final = 8
"""Folders of which each probe takes one: so two probes at one time seldom meet, and the names stay few."""


class Probe:
    """One run over one bucket; blocking, for a thread of the adapter."""

    def __init__(self, settings: S3Settings, clients: Clients, notes: tuple[str, ...] = ()) -> None:
        self._settings = settings
        self._clients = clients
        self._litter = Litter(clients.calls)
        self._notes = list(notes)
        self._slot = f"{secrets.randbelow(SLOTS)}/"
        self._direct = Signer(clients.calls.client, settings.bucket, clients.credentials)
        public = settings.public_endpoint not in {None, settings.endpoint}
        self._signer = Signer(clients.signer, settings.bucket, clients.credentials) if public else self._direct

    def run(self) -> ObjectStoreCapabilities:
        """The whole probe: `ObjectStoreRefused` with what to change when uploads cannot work; boto3's exceptions."""
        with Puts(CONNECTIONS) as puts:
            try:
                seen = self._tried(puts)
            except NotVisible as error:
                text = f"an object that was stored is not shown ({error}): the object store is eventually consistent"
                raise ObjectStoreDown(text) from error
            except NoAnswer as error:
                text = f"the object store does not answer ({error}): check AWS_ENDPOINT"
                raise ObjectStoreDown(text) from error
            finally:
                with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="probe") as pool:
                    self._notes += self._litter.remove(pool)
        return replace(self._capabilities(seen), notes=tuple(self._notes))

    def _tried(self, puts: Puts) -> Seen:
        """The trial with the findings that count, and the removal of what killed probes left.

        When one call fails, the others are waited for: each may still make an object, which is to be removed.
        """
        pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="probe")
        try:
            swept = [pool.submit(self._litter.remove_abandoned, prefix) for prefix in self._settings.probe_prefixes]
            seen = self._seen(pool, puts)
            for one in swept:
                one.result()
            return seen
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _seen(self, pool: Executor, puts: Puts) -> Seen:
        """The trial with the findings that count."""
        try:
            return self._below_some_prefix(pool, puts)
        except NoAnswer:
            if self._signer is self._direct:
                raise
            self._notes.append(
                f"S3_PUBLIC_ENDPOINT {self._settings.public_endpoint} cannot be used from here; the object store was"
                " probed through AWS_ENDPOINT."
            )
            self._signer = self._direct
            return self._below_some_prefix(pool, puts)

    def _below_some_prefix(self, pool: Executor, puts: Puts) -> Seen:
        outside, *inside = self._settings.probe_prefixes
        seen = self._encrypted_as_needed(pool, puts, outside)
        if inside and Judgement(seen, self._settings).forbidden:
            self._notes.append(
                f"These credentials may not write below {PROBE_FOLDER}/, so the probe writes below {inside[0]}:"
                " programs that watch the uploads see its objects."
            )
            seen = self._encrypted_as_needed(pool, puts, inside[0])
        judgement = Judgement(seen, self._settings)
        judgement.require_usable(lambda: self._taken_directly(seen, puts))
        return seen

    def _encrypted_as_needed(self, pool: Executor, puts: Puts, prefix: str) -> Seen:
        """The trial with the least request for encryption that the object store accepts.

        A bucket that encrypts by default gets no request: AES256 would override a default of KMS.
        """
        wanted = self._settings.encryption

        def place(encryption: str | None) -> Place:
            where = f"{prefix}{self._slot}"
            return Place(self._clients, self._signer, puts, self._litter, where, encryption)

        if wanted != AUTO:
            return run_trial(place(None if wanted == NONE else wanted), pool)
        asking = pool.submit(both_ways, place("AES256"))
        seen = run_trial(place(None), pool)
        by_put, by_parts = asking.result()
        if any(way.works for way in seen.ways):
            shown = all(way.info is not None and way.info.encryption for way in (by_put, by_parts))
            if _encryption_of(seen) is None and shown:
                seen.encryption = "AES256"
            return seen
        if by_put.taken:
            return run_trial(place("AES256"), pool)
        if Judgement(seen, self._settings).forbidden and both_ways(place(KMS))[0].taken:
            return run_trial(place(KMS), pool)
        return seen

    def _taken_directly(self, seen: Seen, puts: Puts) -> bool:
        """Whether the object store takes the PUT that was refused, when it does not go through the public endpoint."""
        if self._signer is self._direct:
            return False
        place = Place(self._clients, self._direct, puts, self._litter, seen.prefix, seen.encryption)
        return any(way.taken for way in both_ways(place))

    def _capabilities(self, seen: Seen) -> ObjectStoreCapabilities:
        judgement = Judgement(seen, self._settings)
        self._notes += judgement.notes()
        encryption = seen.encryption or _encryption_of(seen)
        # Under KMS or a customer's key an ETag is never an MD5 (Object, S3 API reference), even if it looks like one.
        readable = (encryption or "").partition(":")[0] in {"", "AES256"}
        return ObjectStoreCapabilities(
            part_digests=frozenset(judgement.enforced_on_parts),
            object_digests=frozenset(judgement.enforced_on_objects),
            usable_digests=frozenset(seen.usable),
            etag_is_md5=readable and _etags_are_md5s(seen),
            if_none_match=seen.if_none_match,
            encrypts=encryption is not None,
            clock_skew=judgement.skew,
            asks_encryption=seen.encryption,
            refused_characters=seen.refused_characters,
            missing_is_forbidden=seen.missing_is_forbidden,
        )


def _encryption_of(seen: Seen) -> str | None:
    """How the objects of a trial are encrypted."""
    return next((way.info.encryption for way in seen.ways if way.info is not None), None)


def _etags_are_md5s(seen: Seen) -> bool:
    md5 = digest_of(DigestName.MD5, BODY) or ""
    objects = [way.info.etag for way in seen.objects.values() if way.info is not None]
    parts = [way.info.etag for way in seen.parts.values() if way.info is not None]
    # An object store that takes no PutObject is used for multipart uploads alone.
    return bool(parts) and {*objects} <= {object_etag(md5)} and {*parts} == {multipart_etag([md5])}
