"""The findings of the probe on three servers, on object stores that cannot be used, and on misleading ones.

Rule: the tests expect what each server enforced when it was measured, so an upgrade that changes it fails them.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from broker.server import free_port
from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.services.errors import ClocksDiffer, ObjectStoreDown, ObjectStoreRefused
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.ports.object_store import Grantable, ObjectStoreCapabilities
from schemas.values import DigestName
from tests.support.s3_servers import S3Server, start_moto, start_nanio
from tests.support.strict_s3 import Fault, Kind, Operation, Options, StrictServer, start_strict

BUCKET: Final = "backhaul-probe-tests"
ALL: Final = frozenset({DigestName.MD5, DigestName.SHA256, DigestName.CRC32})


def settings_of(server: S3Server, **changed: str) -> S3Settings:
    known = {"access_key": server.access_key, "secret_key": server.secret_key, "endpoint": server.endpoint}
    return S3Settings(**{"bucket": BUCKET, **known, **changed})


Open = Callable[[S3Settings], S3ObjectStore]


@pytest_asyncio.fixture
async def open_store() -> AsyncIterator[Open]:
    """Opens object stores, and closes them after the test."""
    opened: list[S3ObjectStore] = []

    def open_one(settings: S3Settings) -> S3ObjectStore:
        opened.append(S3ObjectStore(settings))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[StrictServer]:
    with start_strict(tmp_path) as server:
        yield server


async def probed(store: S3ObjectStore) -> ObjectStoreCapabilities:
    await store.ensure_bucket()
    return await store.probe()


async def test_nanio_checks_the_md5_of_objects_and_nothing_else(tmp_path: Path, open_store: Open) -> None:
    with start_nanio(tmp_path) as server:
        seen = await probed(open_store(settings_of(server)))
        assert list((tmp_path / "objects" / BUCKET).glob("**/*.bin")) == []
        left = [path for path in server.object_path(BUCKET, "uploads").glob("**/*") if path.is_file()]
    assert seen.object_digests == {DigestName.MD5}
    assert (seen.part_digests, seen.if_none_match, seen.encrypts) == (frozenset(), False, False)
    assert seen.etag_is_md5
    assert seen.refused_characters == "%"
    assert left == []
    assert "UploadPart with md5: a wrong digest is not noticed." in seen.notes


@pytest.mark.slow
async def test_moto_checks_no_digest_at_all(tmp_path: Path, open_store: Open) -> None:
    with start_moto(tmp_path) as server:
        seen = await probed(open_store(settings_of(server)))
    assert (seen.part_digests, seen.object_digests) == (frozenset(), frozenset())
    assert (seen.if_none_match, seen.encrypts, seen.etag_is_md5) == (True, True, True)


async def test_the_strict_double_checks_everything_and_is_left_unchanged(
    strict: StrictServer, open_store: Open
) -> None:
    seen = await probed(open_store(settings_of(strict.s3)))
    assert (seen.part_digests, seen.object_digests) == (ALL, ALL)
    assert (seen.if_none_match, seen.encrypts, seen.etag_is_md5) == (True, True, True)
    assert seen.clock_skew == pytest.approx(0, abs=2)
    assert strict.storage.buckets[BUCKET].objects == {}
    assert strict.storage.uploads == {}
    assert "publicAccessBlock" in strict.storage.buckets[BUCKET].rules
    assert seen.notes == (f"The bucket {BUCKET} was created. Public access to it is blocked.",)


@pytest.mark.parametrize("encryption", ["aws:kms", "AES256"])
async def test_a_bucket_that_encrypts_by_default_gets_no_encryption_header(
    tmp_path: Path, open_store: Open, encryption: str
) -> None:
    """Requesting AES256 would override a default of KMS; and under KMS no ETag is an MD5."""
    with start_strict(tmp_path, Options(encryption=encryption)) as server:
        store = open_store(settings_of(server.s3))
        seen = await probed(store)
        s3_upload_id = await store.create_multipart("key", "token", DigestName.MD5)
        assert server.storage.uploads[s3_upload_id].properties.encryption == encryption
    assert seen.encrypts
    assert seen.etag_is_md5 is (encryption == "AES256")
    grant = store.presign_object("key", "token", Grantable(1, 0, None, 60), DigestName.NONE, once=False)
    assert "x-amz-server-side-encryption" not in grant.headers


async def test_encryption_is_requested_where_it_works_only_on_request(strict: StrictServer, open_store: Open) -> None:
    store = open_store(settings_of(strict.s3))
    await probed(store)
    s3_upload_id = await store.create_multipart("key", "token", DigestName.MD5)
    assert strict.storage.uploads[s3_upload_id].properties.encryption == "AES256"
    grant = store.presign_object("key", "token", Grantable(1, 0, None, 60), DigestName.NONE, once=False)
    assert grant.headers["x-amz-server-side-encryption"] == "AES256"


@pytest.mark.parametrize("skew", [-120.0, 300.0])
async def test_a_clock_that_differs_is_noted(tmp_path: Path, open_store: Open, skew: float) -> None:
    with start_strict(tmp_path, Options(clock_skew=skew)) as server:
        seen = await probed(open_store(settings_of(server.s3)))
    assert seen.clock_skew == pytest.approx(skew, abs=2)
    assert any("The object store's clock is" in note for note in seen.notes)


@pytest.mark.slow
@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_a_clock_that_differs_too_much_is_the_error(tmp_path: Path, open_store: Open, skew: float) -> None:
    """The object store refuses every request then; that must not be taken for a refusal of the credentials."""
    with start_strict(tmp_path, Options(clock_skew=skew)) as server:
        probe = ObjectStoreProbe(open_store(settings_of(server.s3)), lambda _event, _facts: None)
        with pytest.raises(ClocksDiffer, match="set this machine's clock"):
            await probe.probe()
    assert probe.clock_is_wrong


@pytest.mark.parametrize(
    ("operation", "key"),
    [(Operation.UPLOAD_PART, "*/wrong-parts-sha256"), (Operation.PUT_OBJECT, "*/wrong-object-md5")],
)
async def test_a_busy_moment_of_the_object_store_changes_no_finding(
    strict: StrictServer, open_store: Open, operation: Operation, key: str
) -> None:
    """A digest that seems not to be enforced for an hour would leave uploads of that hour without their proof."""
    strict.faults.add(Fault(kind=Kind.ERROR, operation=operation, status=503, code="SlowDown", key=key))
    seen = await probed(open_store(settings_of(strict.s3)))
    assert (seen.part_digests, seen.object_digests) == (ALL, ALL)


async def test_a_probe_that_fails_midway_removes_its_objects(strict: StrictServer, open_store: Open) -> None:
    """Also the objects that its other calls make after the first failure."""
    store = open_store(settings_of(strict.s3))
    await store.ensure_bucket()
    strict.faults.add(Fault(kind=Kind.RESET, operation=Operation.PUT_OBJECT, key="*/once-md5", times=99))
    strict.faults.add(
        Fault(kind=Kind.SLOW, operation=Operation.COMPLETE_MULTIPART_UPLOAD, key="*/encrypted-parts", seconds=4)
    )
    with pytest.raises(ObjectStoreDown):
        await store.probe()
    assert strict.storage.buckets[BUCKET].objects == {}
    assert strict.storage.uploads == {}


async def test_objects_that_could_not_be_removed_are_noted(strict: StrictServer, open_store: Open) -> None:
    store = open_store(settings_of(strict.s3))
    await store.ensure_bucket()
    denied = Fault(kind=Kind.ERROR, operation=Operation.DELETE_OBJECT, status=403, code="AccessDenied", times=99)
    strict.faults.add(denied)
    seen = await store.probe()
    assert any("objects of the probe stay (AccessDenied)" in note for note in seen.notes)


async def test_multipart_without_sha256_support_is_a_finding(strict: StrictServer, open_store: Open) -> None:
    store = open_store(settings_of(strict.s3))
    await store.ensure_bucket()
    strict.faults.add(
        Fault(
            kind=Kind.ERROR,
            operation=Operation.CREATE_MULTIPART_UPLOAD,
            key="*parts-sha256",
            times=2,
            status=501,
            code="NotImplemented",
        )
    )
    seen = await store.probe()
    assert seen.part_digests == {DigestName.MD5, DigestName.CRC32}
    assert "UploadPart with sha256 could not be tried (NotImplemented)." in seen.notes


@pytest.mark.slow
async def test_a_busy_object_store_counts_as_enforcing_nothing(strict: StrictServer, open_store: Open) -> None:
    """The wrong digest was rejected for another reason."""
    store = open_store(settings_of(strict.s3))
    await store.ensure_bucket()
    busy = Fault(kind=Kind.ERROR, key="*/object-md5", times=100, status=429, code="TooManyRequests")
    strict.faults.add(busy)
    seen = await store.probe()
    assert DigestName.MD5 not in seen.object_digests
    assert DigestName.MD5 in seen.part_digests


async def test_the_public_endpoint_is_probed(strict: StrictServer, open_store: Open) -> None:
    public = strict.s3.endpoint.replace("127.0.0.1", "localhost")
    seen = await probed(open_store(settings_of(strict.s3, public_endpoint=public)))
    assert seen.part_digests == ALL
    assert not any("S3_PUBLIC_ENDPOINT" in note for note in seen.notes)


async def test_an_unreachable_public_endpoint_is_noted(strict: StrictServer, open_store: Open) -> None:
    public = f"http://127.0.0.1:{free_port()}"
    seen = await probed(open_store(settings_of(strict.s3, public_endpoint=public)))
    assert seen.part_digests == ALL
    assert any("S3_PUBLIC_ENDPOINT" in note and "cannot be used from here" in note for note in seen.notes)


@pytest.mark.parametrize(
    ("changed", "setting"),
    [
        ({"access_key": "AKIAWRONG"}, "AWS_ACCESS_KEY_ID"),
        ({"secret_key": "wrong"}, "AWS_SECRET_ACCESS_KEY"),
        ({"region": "eu-west-9"}, "AWS_REGION"),
        ({"bucket": "Not_A_Bucket"}, "S3_BUCKET_NAME"),
    ],
)
async def test_a_wrong_setting_is_named(
    strict: StrictServer, open_store: Open, changed: dict[str, str], setting: str
) -> None:
    store = open_store(settings_of(strict.s3, **changed))
    with pytest.raises(ObjectStoreRefused, match=setting):
        await probed(store)


async def test_a_missing_bucket_is_named(strict: StrictServer, open_store: Open) -> None:
    with pytest.raises(ObjectStoreRefused, match="S3_BUCKET_NAME"):
        await open_store(settings_of(strict.s3)).probe()


async def test_an_unreachable_object_store_is_one_sentence(open_store: Open) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    store = open_store(S3Settings(bucket=BUCKET, access_key="a", secret_key="b", endpoint=endpoint))
    with pytest.raises(ObjectStoreDown, match=r"did not answer .*: check AWS_ENDPOINT"):
        await store.ensure_bucket()
