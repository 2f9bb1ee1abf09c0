"""The probe on object stores of bad manners: it does what devices do, so its findings hold for devices.

Rule: each test names a kind: what differs from Amazon S3, and what the probe has to find, refuse or leave alone.
"""

import asyncio
import hashlib
import re
import socket
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from control_plane.adapters.clocks import SystemClock
from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.adapters.object_store import ProbeMemory, S3ObjectStore, S3Settings
from control_plane.adapters.object_store.probe.litter import ABANDONED
from control_plane.adapters.object_store.probe.trial import DIGESTS
from control_plane.services.diagnosis.findings import Finding
from control_plane.services.diagnosis.store import StoreDoctor
from control_plane.services.errors import ObjectStoreForbids, ObjectStoreRefused
from control_plane.services.policy import Policy
from control_plane.services.ports.object_store import Grantable, ObjectStoreCapabilities
from schemas.names import NAME_METADATA, TOKEN_METADATA
from schemas.values import DigestName
from tests.support.s3_servers import put
from tests.support.strict_s3 import Fault, Kind, Operation, Options, Quirk, StrictServer, start_strict
from tests.support.strict_s3.storage import Bucket, StoredObject

BUCKET: Final = "backhaul-quirks"
BODY: Final = b"a file of a device"
NEW: Final = ObjectStoreCapabilities
SHA256, MD5, CRC32 = DigestName.SHA256, DigestName.MD5, DigestName.CRC32


@asynccontextmanager
async def met(
    directory: Path,
    *quirks: Quirk,
    options: Options | None = None,
    exists: bool = True,
    **changed: str,
) -> AsyncIterator[tuple[StrictServer, S3ObjectStore]]:
    """A double with these quirks, and a client of it that has made no request; whether its bucket `exists`."""
    with start_strict(directory, options) as server:
        keys = keys_of(server)
        if exists:
            server.storage.buckets[BUCKET] = Bucket()
        server.quirks.update(quirks)
        changed = {name: text.replace("PORT", server.s3.endpoint.rpartition(":")[2]) for name, text in changed.items()}
        store = S3ObjectStore(S3Settings(**{"bucket": BUCKET, **keys, **changed}))
        try:
            yield server, store
        finally:
            await store.close()


def keys_of(server: StrictServer) -> dict[str, str]:
    return {
        "access_key": server.s3.access_key,
        "secret_key": server.s3.secret_key,
        "endpoint": server.s3.endpoint,
    }


async def probed(directory: Path, *quirks: Quirk, **changed: Any) -> ObjectStoreCapabilities:  # noqa: ANN401
    """What the probe finds."""
    async with met(directory, *quirks, **changed) as (_, store):
        await store.ensure_bucket()
        return await store.probe()


def granted(digest: DigestName) -> Grantable:
    raw = {MD5: hashlib.md5(BODY, usedforsecurity=False), SHA256: hashlib.sha256(BODY)}[digest].digest()
    return Grantable(1, len(BODY), b64encode(raw).decode(), 60)


async def uploaded(store: S3ObjectStore, key: str, digest: DigestName) -> None:
    """Upload one object by multipart, as a device and its owner do."""
    s3_upload_id = await store.create_multipart(key, "token", digest)
    answer = await put(store.presign_part(key, s3_upload_id, granted(digest), digest), BODY)
    await store.complete(key, s3_upload_id, {1: answer.headers["etag"].strip('"')})


EVERYTHING: Final = NEW(
    part_digests=frozenset({SHA256, MD5, CRC32}),
    object_digests=frozenset({SHA256, MD5, CRC32}),
    usable_digests=frozenset(DigestName),
    etag_is_md5=True,
    if_none_match=True,
    encrypts=True,
    asks_encryption="AES256",
)
ONLY_MD5: Final = replace(EVERYTHING, part_digests=frozenset({MD5}), object_digests=frozenset({MD5}))
FINDINGS: Final[dict[Quirk, tuple[ObjectStoreCapabilities, DigestName]]] = {
    Quirk.LOCK_WANTS_DIGEST: (replace(EVERYTHING, usable_digests=frozenset({SHA256, MD5, CRC32})), SHA256),
    Quirk.DEMANDS_AES256: (EVERYTHING, SHA256),
    Quirk.DEMANDS_KMS: (replace(EVERYTHING, asks_encryption="aws:kms", etag_is_md5=False), SHA256),
    Quirk.CONTINUE_UNASKED: (EVERYTHING, SHA256),
    Quirk.NO_LIST_PERMISSION: (replace(EVERYTHING, missing_is_forbidden=True), SHA256),
    Quirk.NO_LIST_UPLOADS_PERMISSION: (EVERYTHING, SHA256),
    Quirk.NO_DELETE_PERMISSION: (EVERYTHING, SHA256),
    Quirk.HARD_NAMES_REFUSED: (replace(EVERYTHING, refused_characters=" %+ü"), SHA256),
    Quirk.HEAD_WITHOUT_LENGTH: (EVERYTHING, SHA256),
    Quirk.ABORT_OF_COMPLETED_FAILS: (EVERYTHING, SHA256),
    Quirk.ETAG_NOT_MD5: (replace(EVERYTHING, etag_is_md5=False), SHA256),
    Quirk.MD5_IGNORED: (
        replace(EVERYTHING, part_digests=frozenset({SHA256, CRC32}), object_digests=frozenset({SHA256, CRC32})),
        SHA256,
    ),
    Quirk.CHECKSUMS_IGNORED: (ONLY_MD5, MD5),
    Quirk.CHECKSUMS_UNKNOWN: (replace(ONLY_MD5, usable_digests=frozenset({MD5, DigestName.NONE})), MD5),
    Quirk.DIGESTS_IGNORED: (replace(EVERYTHING, part_digests=frozenset(), object_digests=frozenset()), MD5),
    Quirk.CONDITION_IGNORED: (replace(EVERYTHING, if_none_match=False), SHA256),
    Quirk.CONDITION_UNKNOWN: (replace(EVERYTHING, if_none_match=False), SHA256),
}


IN_SHORT: Final = {Quirk.LOCK_WANTS_DIGEST, Quirk.DEMANDS_KMS}


@pytest.mark.parametrize(
    "quirk", [pytest.param(one, id=one.name, marks=[] if one in IN_SHORT else pytest.mark.slow) for one in FINDINGS]
)
async def test_an_object_store_with_a_quirk_is_usable_and_the_quirk_is_found(tmp_path: Path, quirk: Quirk) -> None:
    """The probe asks for no more than uploads need, and what it finds is what a device would meet."""
    seen = await probed(tmp_path, quirk)
    expected, digest = FINDINGS[quirk]
    assert replace(seen, notes=(), clock_skew=None) == expected
    assert seen.digest_for(None) is digest


PUBLIC: Final = "http://localhost:PORT"
REFUSED: Final = [
    pytest.param(one, marks=[pytest.mark.slow] if one in {Quirk.DROPS_METADATA, Quirk.TOKEN_ENDED} else [])
    for one in Quirk
    if one.value.refusal
]


@pytest.mark.parametrize("quirk", REFUSED, ids=lambda quirk: quirk.name)
async def test_an_object_store_that_uploads_cannot_use_is_refused_with_what_to_change(
    tmp_path: Path, quirk: Quirk
) -> None:
    """Ready means that an upload would work: the probe goes the devices' way, and its finding has a consequence."""
    public = PUBLIC if quirk.name.startswith("PROXY_") else "http://127.0.0.1:PORT"
    async with met(tmp_path, quirk, public_endpoint=public) as (_, store):
        with pytest.raises(ObjectStoreRefused, match=quirk.value.refusal):
            await probed_again(store)


async def probed_again(store: S3ObjectStore) -> ObjectStoreCapabilities:
    await store.ensure_bucket()
    return await store.probe()


@pytest.mark.slow
async def test_a_header_that_a_proxy_removes_decides_the_digest(tmp_path: Path) -> None:
    """A digest that works is chosen before none does."""
    seen = await probed(tmp_path, Quirk.PROXY_STRIPS_MD5, public_endpoint=PUBLIC)
    assert MD5 not in seen.usable_digests
    assert [seen.digest_for(wanted) for wanted in (None, MD5, CRC32)] == [SHA256, SHA256, CRC32]
    assert any("md5 is refused even when it is right (SignatureDoesNotMatch)" in note for note in seen.notes)


@pytest.mark.slow
async def test_no_digest_that_passes_the_proxy_is_refused_with_the_headers(tmp_path: Path) -> None:
    quirks = (Quirk.PROXY_STRIPS_MD5, Quirk.CHECKSUMS_UNKNOWN)
    async with met(tmp_path, *quirks, public_endpoint=PUBLIC) as (_, store):
        with pytest.raises(ObjectStoreRefused, match=r"strip .*Content-MD5 \(SignatureDoesNotMatch\)"):
            await probed_again(store)
    async with met(tmp_path / "none", *quirks, public_endpoint=PUBLIC, digest="none") as (_, store):
        assert (await probed_again(store)).digest_for(DigestName.NONE) is DigestName.NONE


async def test_one_put_is_used_only_where_no_other_bytes_can_replace_the_object(tmp_path: Path) -> None:
    """Without If-None-Match its URL writes again, and other bytes can have the same MD5."""
    seen = await probed(tmp_path, Quirk.CONDITION_IGNORED)
    assert seen.object_digests == {MD5, SHA256, CRC32}
    assert seen.one_put_digests == {SHA256}
    seen = await probed(tmp_path / "proxy", Quirk.PROXY_STRIPS_METADATA, public_endpoint=PUBLIC)
    assert (set(seen.one_put_digests), set(seen.part_digests)) == (set(), {MD5, SHA256, CRC32})
    assert any("every file is sent by multipart" in note for note in seen.notes)


@pytest.mark.slow
@pytest.mark.parametrize("quirk", [Quirk.VISIBLE_LATE, Quirk.REMEMBERED_404], ids=lambda quirk: quirk.name)
async def test_a_new_object_that_is_shown_late_is_waited_for(tmp_path: Path, quirk: Quirk) -> None:
    seen = await probed(tmp_path, quirk, options=Options(hidden_for=0.6))
    assert seen.usable_digests == frozenset(DigestName)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encryption", "asked"), [("none", None), ("AES256", "AES256"), ("aws:kms", "aws:kms"), ("aws:kms:alias/x", None)]
)
async def test_the_setting_decides_which_encryption_is_asked_for(
    tmp_path: Path, encryption: str, asked: str | None
) -> None:
    """Both ways ask: PutObject by a signed header, CreateMultipartUpload by itself."""
    async with met(tmp_path, encryption=encryption) as (server, store):
        seen = await probed_again(store)
        grant = store.presign_object("k", "token", granted(MD5), MD5, once=False)
        s3_upload_id = await store.create_multipart("k", "token", MD5)
        assert server.storage.uploads[s3_upload_id].properties.encryption == (
            asked or (seen.asks_encryption and "aws:kms")
        )
    sent = {name: value for name, value in grant.headers.items() if "encryption" in name}
    if encryption == "aws:kms:alias/x":
        prefix = "x-amz-server-side-encryption"
        assert sent == {prefix: "aws:kms", f"{prefix}-aws-kms-key-id": "alias/x"}
    else:
        assert list(sent.values()) == [asked] * bool(asked)


async def test_a_missing_object_is_found_missing_without_the_permission_to_list(tmp_path: Path) -> None:
    """Only `AccessDenied` is taken for a missing object: a revoked key is still a refusal."""
    async with met(tmp_path, Quirk.NO_LIST_PERMISSION) as (server, store):
        await probed_again(store)
        assert await store.head("uploads/missing") is None
        server.faults.add(Fault(kind=Kind.ERROR, status=403, code="InvalidAccessKeyId", times=9))
        with pytest.raises(ObjectStoreForbids):
            await store.head("uploads/missing")


async def test_a_size_is_found_without_a_content_length(tmp_path: Path) -> None:
    """No header is taken for granted; an empty object has no first byte to ask for."""
    async with met(tmp_path, Quirk.HEAD_WITHOUT_LENGTH) as (_, store):
        await probed_again(store)
        await uploaded(store, "uploads/a", MD5)
        empty = hashlib.md5(usedforsecurity=False).digest()
        part = Grantable(1, 0, b64encode(empty).decode(), 60)
        await put(store.presign_object("uploads/empty", "token", part, MD5, once=True), b"")
        sizes = [info and info.size for info in (await store.head("uploads/a"), await store.head("uploads/empty"))]
    assert sizes == [len(BODY), 0]


@pytest.mark.slow
async def test_the_abort_of_a_completed_upload_is_no_error(tmp_path: Path) -> None:
    """What the listing shows decides, not the code of the answer."""
    async with met(tmp_path, Quirk.ABORT_OF_COMPLETED_FAILS) as (server, store):
        s3_upload_id = await store.create_multipart("uploads/a", "token", MD5)
        server.storage.end(server.storage.uploads[s3_upload_id])
        await store.abort("uploads/a", s3_upload_id)
        assert server.storage.uploads == {}


@pytest.mark.parametrize("missing", [False, True])
async def test_the_bucket_may_be_reached_by_its_host_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, missing: bool
) -> None:
    """A HEAD by path is refused, which does not say whether the bucket is there: it is created by its host too."""
    resolve = socket.getaddrinfo

    def local(host: Any, *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - as the standard library has it
        name = host.decode() if isinstance(host, bytes) else str(host)
        return resolve("127.0.0.1" if name.endswith("s3.test") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    async with met(tmp_path, Quirk.VIRTUAL_HOST_ONLY, endpoint="http://s3.test:PORT") as (server, store):
        if missing:
            del server.storage.buckets[BUCKET]
        seen = await probed_again(store)
        grant = store.presign_object("uploads/a", "token", granted(MD5), MD5, once=True)
        assert grant.url.startswith(f"http://{BUCKET}.s3.test:")
        assert (await put(grant, BODY)).status_code == 200
        assert (await store.head("uploads/a")) is not None
    assert seen.part_digests == {MD5, SHA256, CRC32}
    by_path = met(tmp_path / "path", Quirk.VIRTUAL_HOST_ONLY, endpoint="http://s3.test:PORT", addressing="path")
    async with by_path as (_, store):
        with pytest.raises(ObjectStoreRefused):
            await probed_again(store)


async def test_a_refused_probe_changes_the_host_of_no_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it runs, URLs are signed for devices, and a host that a device does not know ends its upload."""
    async with met(tmp_path, endpoint="http://localhost:PORT") as (_, store):
        await probed_again(store)
        before = store.presign_get("uploads/a", 60).partition("?")[0]
        seen: list[str] = []

        def refuse() -> ObjectStoreCapabilities:
            seen.append(store.presign_get("uploads/a", 60).partition("?")[0])
            message = "the credentials are refused"
            raise ObjectStoreRefused(message)

        monkeypatch.setattr(store, "_probed", refuse)
        with pytest.raises(ObjectStoreRefused):
            await store.probe()
        assert set(seen) == {before}


async def test_the_name_of_a_file_is_kept_beside_a_key_that_cannot_have_it(tmp_path: Path) -> None:
    async with met(tmp_path, Quirk.HARD_NAMES_REFUSED) as (server, store):
        assert (await probed_again(store)).refused_characters == " %+ü"
        s3_upload_id = await store.create_multipart("uploads/100_.bin", "token", MD5, file_name="100% ü.bin")
        made = server.storage.uploads[s3_upload_id].properties.metadata
        grant = store.presign_object("uploads/a_", "token", granted(MD5), MD5, once=False, file_name="a+")
        assert (await put(grant, BODY)).status_code == 200
        info = await store.head("uploads/a_")
    assert made == {TOKEN_METADATA: "token", NAME_METADATA: "100%25%20%C3%BC.bin"}
    assert info is not None
    assert info.metadata[NAME_METADATA] == "a%2B"


@pytest.mark.slow
async def test_without_the_permission_to_delete_the_same_few_objects_are_written_again(tmp_path: Path) -> None:
    """The litter of a watchman: fixed names, outside the prefix that others watch."""
    async with met(tmp_path, Quirk.NO_DELETE_PERMISSION) as (server, store):
        notes = [(await probed_again(store)).notes for _ in range(3)]
        keys = set(server.storage.buckets[BUCKET].objects)
    assert all(any("stay (AccessDenied)" in note for note in one) for one in notes)
    names = {re.sub(r"^\.backhaul-probe/\d/", "", key) for key in keys}
    assert len(names) < 20
    assert all(re.match(r"\.backhaul-probe/\d/", key) for key in keys)


async def test_one_item_that_cannot_be_removed_keeps_no_other(tmp_path: Path) -> None:
    async with met(tmp_path, Quirk.ABORT_OF_COMPLETED_FAILS) as (server, store):
        server.faults.add(
            Fault(kind=Kind.ERROR, operation=Operation.DELETE_OBJECT, status=403, code="AccessDenied", key="*once-md5"),
            Fault(kind=Kind.ERROR, operation=Operation.ABORT_MULTIPART_UPLOAD, status=403, code="AccessDenied"),
        )
        seen = await probed_again(store)
        assert len(server.storage.buckets[BUCKET].objects) == 1
        assert len(server.storage.uploads) == 1
    assert any(note.startswith("2 objects of the probe stay (AccessDenied)") for note in seen.notes)


async def test_a_probe_leaves_no_version_and_no_marker(tmp_path: Path) -> None:
    """A DELETE without a version would leave two for each object, each hour."""
    async with met(tmp_path, Quirk.KEEPS_VERSIONS) as (server, store):
        await probed_again(store)
        bucket = server.storage.buckets[BUCKET]
        assert (bucket.versions, bucket.objects) == ({}, {})


async def test_what_a_killed_probe_left_is_found_by_its_prefix_and_age(tmp_path: Path) -> None:
    """Also below the prefix of earlier versions; what another probe is using now stays."""
    async with met(tmp_path) as (server, store):
        await probed_again(store)
        storage = server.storage
        old = [".backhaul-probe/3/object-md5", "uploads/.backhaul-probe/0123/once"]
        for key, age in [*((key, ABANDONED + 60) for key in old), (".backhaul-probe/4/plain", 5)]:
            await put(store.presign_object(key, "token", granted(MD5), MD5, once=False), BODY)
            s3_upload_id = await store.create_multipart(key, "token", MD5)
            storage.uploads[s3_upload_id].initiated_at = time.time() - age
            found = storage.buckets[BUCKET].objects
            found[key] = _aged(found[key], age)
        await probed_again(store)
        assert [upload.key for upload in storage.uploads.values()] == [".backhaul-probe/4/plain"]
        assert set(storage.buckets[BUCKET].objects) == {".backhaul-probe/4/plain"}


def _aged(stored: StoredObject, age: float) -> StoredObject:
    return replace(stored, modified_at=time.time() - age)


@pytest.mark.slow
async def test_credentials_for_the_uploads_alone_are_enough(tmp_path: Path) -> None:
    """The documented policy covers the keys below BASE_S3_PATH only."""
    async with met(tmp_path) as (server, store):
        outside = Fault(kind=Kind.ERROR, key=".backhaul-probe/*", status=403, code="AccessDenied", times=10_000)
        server.faults.add(outside)
        seen = await probed_again(store)
        written = {one.key for one in server.events if one.done and one.key}
    assert seen.part_digests == {MD5, SHA256, CRC32}
    assert all(key.startswith("uploads/.backhaul-probe/") for key in written)
    assert any("may not write below" in note for note in seen.notes)


async def test_a_probe_does_not_wait_for_what_it_does_not_need(tmp_path: Path) -> None:
    """A slow store is asked in parallel: the seven multipart uploads begin while none of them was answered."""
    held = Fault(kind=Kind.HELD, operation=Operation.CREATE_MULTIPART_UPLOAD, times=1_000)
    async with met(tmp_path) as (server, store):
        server.faults.add(held)
        probing = asyncio.create_task(probed_again(store))
        async with asyncio.timeout(60):
            while len(server.storage.uploads) < 2 * len(DIGESTS) + 1:  # noqa: ASYNC110 - begun in another thread
                await asyncio.sleep(0.01)
        assert not probing.done()
        server.faults.clear()
        seen = await probing
    assert seen.part_digests == {MD5, SHA256, CRC32}


async def test_the_result_of_a_probe_is_used_for_an_hour(tmp_path: Path) -> None:
    """By the first probe of a program that runs for one upload, until `doctor` forgets it; a later probe is a probe."""
    now = [1000.0]
    memory = ProbeMemory(tmp_path / "state", lambda: now[0])
    async with met(tmp_path, Quirk.NO_LIST_PERMISSION) as (server, first):
        settings = S3Settings(bucket=BUCKET, **keys_of(server))
        seen = await probed_again(first)

        async def probes_of_a_new_program(*, forget: bool = False) -> list[bool]:
            """For each of its two probes, whether it made requests."""
            program, asked = S3ObjectStore(settings, memory), []
            if forget:
                program.forget_probe()
            for _ in range(2):
                before = len(list(server.events))
                found = await probed_again(program)
                assert (found.part_digests, found.missing_is_forbidden) == (seen.part_digests, True)
                asked.append(len(list(server.events)) > before)
            await program.close()
            return asked

        assert await probes_of_a_new_program() == [True, True]
        assert await probes_of_a_new_program() == [False, True]
        now[0] += 3_601
        assert await probes_of_a_new_program() == [True, True]
        assert await probes_of_a_new_program(forget=True) == [True, True]
    (kept,) = (tmp_path / "state").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    assert server.s3.secret_key not in kept.read_text()
    kept.write_text("{")
    assert memory.recall(settings, server.s3.access_key) is None


LIFECYCLES: Final = [(), (Quirk.LIFECYCLE_WANTS_MD5, Quirk.LIFECYCLE_OLD_FORM)]


@pytest.mark.parametrize("quirks", LIFECYCLES, ids=lambda quirks: "+".join(one.name for one in quirks) or "none")
async def test_the_lifecycle_rule_is_written_in_the_dialect_of_the_object_store(
    tmp_path: Path, quirks: tuple[Quirk, ...]
) -> None:
    """Content-MD5 in place of a checksum; rules without `Filter` where that is refused."""
    async with met(tmp_path, *quirks) as (_, store):
        findings = [await examined(store, fix=fix) for fix in (False, True, False)]
    assert [(one.fine, one.fixed) for one in findings] == [(False, False), (True, True), (True, False)]


async def examined(store: S3ObjectStore, *, fix: bool) -> Finding:
    """What `backhaul doctor` finds about the lifecycle rule."""
    doctor = StoreDoctor(store, SystemClock(), Policy(), database=MemoryDatabase())
    (finding,) = [one for one in await doctor.examine(fix=fix) if one.name == "lifecycle rule"]
    return finding


@pytest.mark.slow
async def test_a_bucket_that_is_created_has_the_lifecycle_rule(tmp_path: Path) -> None:
    """What we set up ourselves passes our own doctor; an object store without such rules passes too."""
    async with met(tmp_path, exists=False) as (_, store):
        assert (await examined(store, fix=False)).text.endswith("is aborted by the store")
    async with met(tmp_path / "without", Quirk.NO_LIFECYCLE, exists=False) as (_, store):
        assert "has no lifecycle rules" in (await examined(store, fix=True)).text
