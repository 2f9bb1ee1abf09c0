"""HeadObject without botocore: the same results, and boto3 for every other response.

Rule: the strict double verifies every signature; boto3 signs in a header, `Heads` in the URL.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from control_plane.adapters.object_store import S3Settings, buckets
from control_plane.adapters.object_store.clients import Bucket, Clients, build_clients
from control_plane.adapters.object_store.heads import Heads
from control_plane.services.ports.object_store import ObjectInfo
from tests.support.strict_s3 import Fault, Kind, Operation, StrictServer, start_strict

BUCKET: Final = "backhaul-head-tests"
KEY: Final = "uploads/device/größe & 1.bin"
THEIRS: Final = buckets.head


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictServer]:
    with start_strict(tmp_path_factory.mktemp("strict")) as started:
        yield started


@pytest.fixture(scope="module")
def clients(server: StrictServer) -> Iterator[Clients]:
    keys = {"access_key": server.s3.access_key, "secret_key": server.s3.secret_key}
    made = build_clients(S3Settings(bucket=BUCKET, endpoint=server.s3.endpoint, **keys), "path")
    buckets.ensure(made.calls, "us-east-1", "uploads/")
    made.calls.client.put_object(
        Bucket=BUCKET, Key=KEY, Body=b"bytes", Metadata={"backhaul-token": "t.1"}, ChecksumAlgorithm="SHA256"
    )
    yield made
    made.close()


@pytest.fixture
def heads(server: StrictServer, clients: Clients) -> Iterator[Heads]:
    server.faults.clear()
    made = Heads(clients.calls, clients.credentials, None)
    yield made
    made.close()
    server.faults.clear()


@pytest.fixture
def by_boto3(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the requests that boto3 sent."""
    keys: list[str] = []

    def head(bucket: Bucket, key: str) -> ObjectInfo | None:
        keys.append(key)
        return THEIRS(bucket, key)

    monkeypatch.setattr(buckets, "head", head)
    return keys


def test_head_returns_what_boto3_returns(heads: Heads, clients: Clients, by_boto3: list[str]) -> None:
    found = heads.head(KEY)
    assert found == THEIRS(clients.calls, KEY)
    assert found is not None
    assert (found.size, found.metadata["backhaul-token"], set(found.checksums)) == (5, "t.1", {"sha256"})
    assert heads.head("uploads/nothing") is None
    assert by_boto3 == []


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.ERROR])
def test_boto3_repeats_a_request_with_another_response(
    heads: Heads, server: StrictServer, by_boto3: list[str], kind: Kind
) -> None:
    server.faults.add(Fault(kind=kind, operation=Operation.HEAD_OBJECT, status=503, code="SlowDown", nth=2, times=2))
    found = [heads.head(KEY) for _ in range(3)]
    assert found[0] is not None
    assert found == [found[0]] * 3
    assert by_boto3 == [KEY]


def test_boto3_is_used_once_presigned_urls_are_rejected(
    heads: Heads, server: StrictServer, by_boto3: list[str]
) -> None:
    server.faults.add(Fault(kind=Kind.ERROR, operation=Operation.HEAD_OBJECT, status=403, code="AccessDenied"))
    assert heads.head(KEY) == heads.head(KEY)
    assert by_boto3 == [KEY, KEY]


def test_many_threads_request_at_once(heads: Heads) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(heads.head, [KEY] * 64))
    assert all(info is not None and info.size == 5 for info in found)


def test_boto3_is_used_behind_a_proxy(clients: Clients, by_boto3: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.adapters.object_store.heads.get_environ_proxies", lambda _: {"http": "proxy"})
    assert Heads(clients.calls, clients.credentials, None).head(KEY) is not None
    assert by_boto3 == [KEY]
