"""HeadObject without botocore: the same answers, and boto3 where ours is not understood.

Rule: the strict double verifies every signature; boto3 signs in a header, we sign in the URL.
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
    made = build_clients(S3Settings(bucket=BUCKET, endpoint=server.s3.endpoint, **keys))
    buckets.ensure(made.calls, "us-east-1")
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
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that boto3 was asked for."""
    keys: list[str] = []

    def head(bucket: Bucket, key: str) -> ObjectInfo | None:
        keys.append(key)
        return THEIRS(bucket, key)

    monkeypatch.setattr(buckets, "head", head)
    return keys


def test_it_tells_what_boto3_tells(heads: Heads, clients: Clients, asked: list[str]) -> None:
    found = heads.head(KEY)
    assert found == THEIRS(clients.calls, KEY)
    assert found is not None
    assert (found.size, found.metadata["backhaul-token"], set(found.checksums)) == (5, "t.1", {"sha256"})
    assert heads.head("uploads/nothing") is None
    assert asked == []


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.ERROR])
def test_whatever_else_happens_boto3_has_its_tries(
    heads: Heads, server: StrictServer, asked: list[str], kind: Kind
) -> None:
    server.faults.add(Fault(kind=kind, operation=Operation.HEAD_OBJECT, status=503, code="SlowDown", nth=2, times=2))
    found = [heads.head(KEY) for _ in range(3)]
    assert found[0] is not None
    assert found == [found[0]] * 3
    assert asked == [KEY]


def test_a_store_that_refuses_signed_urls_is_asked_by_boto3_from_then_on(
    heads: Heads, server: StrictServer, asked: list[str]
) -> None:
    server.faults.add(Fault(kind=Kind.ERROR, operation=Operation.HEAD_OBJECT, status=403, code="AccessDenied"))
    assert heads.head(KEY) == heads.head(KEY)
    assert asked == [KEY, KEY]


def test_many_threads_look_at_once(heads: Heads) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(heads.head, [KEY] * 64))
    assert all(info is not None and info.size == 5 for info in found)


def test_a_proxy_is_boto3s_business(clients: Clients, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.adapters.object_store.heads.get_environ_proxies", lambda _: {"http": "proxy"})
    assert Heads(clients.calls, clients.credentials, None).head(KEY) is not None
    assert asked == [KEY]
