"""Presigned URLs: what they are bound to, their host, and their lifetime.

Rule: no server runs; the code of the test double for S3, which is independent of botocore, verifies the signatures.
"""

import hashlib
import time
import zlib
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.credentials import Credentials, RefreshableCredentials
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.adapters.object_store.clients import build_clients
from control_plane.adapters.object_store.signing import MAX_LIFETIME, Signer
from control_plane.services.errors import BadInput
from control_plane.services.ports.object_store import Grantable
from schemas.values import DigestName, PresignedPart
from tests.support.strict_s3.refusals import Refusal
from tests.support.strict_s3.requests import Request, pairs_of
from tests.support.strict_s3.signatures import Keys, verify

KEYS: Final = Keys("AKIAUNIT", "unit/secret+key", "eu-central-1")
BODY: Final = b"what the device sends"
KEY: Final = "uploads/restaurant-1/20260101-000000-größe & Maß +1.bin"


def b64(raw: bytes) -> str:
    return b64encode(raw).decode()


DIGESTS: Final = {
    DigestName.MD5: ("content-md5", b64(hashlib.md5(BODY, usedforsecurity=False).digest())),
    DigestName.SHA256: ("x-amz-checksum-sha256", b64(hashlib.sha256(BODY).digest())),
    DigestName.CRC32: ("x-amz-checksum-crc32", b64(zlib.crc32(BODY).to_bytes(4))),
}


def store(
    endpoint: str | None = "http://store:9000", public: str | None = None, token: str | None = None
) -> S3ObjectStore:
    return S3ObjectStore(
        S3Settings(
            bucket="bucket",
            region=KEYS.region,
            access_key=KEYS.access_key,
            secret_key=KEYS.secret_key,
            session_token=token,
            endpoint=endpoint,
            public_endpoint=public,
        )
    )


STORE: Final = store()


def part(digest: str | None = None, *, number: int = 3, expires_in: float = 900.0) -> Grantable:
    return Grantable(number, len(BODY), digest, expires_in)


def signed_headers(url: str) -> set[str]:
    return set(parse_qs(urlsplit(url).query)["X-Amz-SignedHeaders"][0].split(";"))


def as_sent(grant: PresignedPart, **changed: str) -> Request:
    """The request of an agent with a grant: the granted headers and the three that it adds."""
    url = urlsplit(grant.url)
    own = {"host": url.netloc, "content-length": str(len(BODY)), "content-type": "application/octet-stream"}
    headers = {**own, **grant.headers, **{name.replace("_", "-"): value for name, value in changed.items()}}
    return Request("PUT", url.path, url.query, headers, dict(pairs_of(url.query)))


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_part_is_bound_to_its_size_and_its_digest(digest: DigestName) -> None:
    header, value = DIGESTS[digest]
    grant = STORE.presign_part(KEY, "id/with+odd=letters", part(value), digest)
    assert (grant.part_number, grant.headers) == (3, {header: value})
    assert signed_headers(grant.url) == {"host", "content-length", header}
    assert verify(as_sent(grant), KEYS, time.time()).presigned


@pytest.mark.parametrize("changed", [{"content_length": "1"}, {"content_md5": b64(b"x" * 16)}, {"host": "other:9000"}])
def test_other_bytes_or_another_host_break_the_signature(changed: Mapping[str, str]) -> None:
    grant = STORE.presign_part(KEY, "id", part(DIGESTS[DigestName.MD5][1]), DigestName.MD5)
    with pytest.raises(Refusal, match="SignatureDoesNotMatch"):
        verify(as_sent(grant, **changed), KEYS, time.time())


def test_without_a_digest_a_part_is_bound_to_its_size() -> None:
    grant = STORE.presign_part(KEY, "id", part(), DigestName.NONE)
    assert grant.headers == {}
    assert signed_headers(grant.url) == {"host", "content-length"}


def test_an_empty_file_is_bound_to_its_size() -> None:
    grant = STORE.presign_object(KEY, "token", Grantable(1, 0, None, 60), DigestName.NONE, once=False)
    assert "content-length" in signed_headers(grant.url)
    assert verify(as_sent(grant, content_length="0"), KEYS, time.time()).presigned


@pytest.mark.parametrize("wrong", [None, "", "AAAA", "AAAAAAAAAAAAAAAAAAAAAA==\r\nx-amz-acl: public-read"])
def test_a_part_without_its_required_digest_is_not_signed(wrong: str | None) -> None:
    with pytest.raises(BadInput, match="part 3 is to be bound to its md5"):
        STORE.presign_part(KEY, "id", part(wrong), DigestName.MD5)


def test_an_object_is_bound_to_token_and_digest_and_is_created_once() -> None:
    header, value = DIGESTS[DigestName.MD5]
    grant = STORE.presign_object(KEY, "the-token.1", part(value, number=1), DigestName.MD5, once=True)
    assert grant.headers == {header: value, "x-amz-meta-backhaul-token": "the-token.1", "if-none-match": "*"}
    assert signed_headers(grant.url) == {"host", "content-length", *grant.headers}
    assert verify(as_sent(grant), KEYS, time.time()).presigned


def test_an_object_may_be_created_again_where_if_none_match_is_not_enforced() -> None:
    grant = STORE.presign_object(KEY, "token", part(number=1), DigestName.NONE, once=False)
    assert "if-none-match" not in signed_headers(grant.url)


def test_a_header_that_was_not_signed_is_refused() -> None:
    grant = STORE.presign_part(KEY, "id", part(), DigestName.NONE)
    with pytest.raises(Refusal, match="not signed"):
        verify(as_sent(grant, x_amz_acl="public-read"), KEYS, time.time())


@given(st.text(min_size=1, max_size=40).filter(lambda key: key.isprintable() and not key.startswith("/")))
def test_any_name_is_signed_as_it_is_sent(name: str) -> None:
    grant = STORE.presign_part(f"uploads/{name}", "id", part(), DigestName.NONE)
    assert verify(as_sent(grant), KEYS, time.time()).presigned


def test_urls_have_the_public_endpoint() -> None:
    public = store("http://store:9000", "https://files.example.org")
    assert public.presign_part(KEY, "id", part(), DigestName.NONE).url.startswith("https://files.example.org/bucket/")
    assert public.presign_get(KEY, 60).startswith("https://files.example.org/bucket/")
    assert STORE.presign_get(KEY, 60).startswith("http://store:9000/bucket/")


def test_urls_of_amazon_name_the_region() -> None:
    assert store(None).presign_get(KEY, 60).startswith("https://bucket.s3.eu-central-1.amazonaws.com/")


def test_temporary_credentials_are_named_in_the_url() -> None:
    grant = store(token="session+token/").presign_part(KEY, "id", part(), DigestName.NONE)
    keys = Keys(KEYS.access_key, KEYS.secret_key, KEYS.region, "session+token/")
    assert verify(as_sent(grant), keys, time.time()).presigned
    with pytest.raises(Refusal, match="InvalidToken"):
        verify(as_sent(grant), KEYS, time.time())


def test_a_url_expires_at_its_instant() -> None:
    grant = STORE.presign_part(KEY, "id", part(expires_in=60.9), DigestName.NONE)
    (text,) = parse_qs(urlsplit(grant.url).query)["X-Amz-Date"]
    # From what the URL says, not from now: between the two a second may end.
    signed_at = datetime.strptime(text, "%Y%m%dT%H%M%S%z").timestamp()
    assert verify(as_sent(grant), KEYS, signed_at + 59).presigned
    with pytest.raises(Refusal, match="Request has expired"):
        verify(as_sent(grant), KEYS, signed_at + 62)


@pytest.mark.parametrize(("wanted", "given"), [(900.0, "900"), (10.0**9, "604800"), (0.2, "1")])
def test_a_lifetime_stays_within_the_limits_of_s3(wanted: float, given: str) -> None:
    query = parse_qs(urlsplit(STORE.presign_get(KEY, wanted)).query)
    assert query["X-Amz-Expires"] == [given]


def test_lasting_credentials_allow_seven_days() -> None:
    assert STORE.url_lifetime(900.0) == 900.0
    assert STORE.url_lifetime(10.0**9) == MAX_LIFETIME


def test_no_url_outlives_temporary_credentials() -> None:
    ends = datetime.now(UTC) + timedelta(hours=1)
    fresh = {"access_key": "A", "secret_key": "B", "token": "C", "expiry_time": ends.isoformat()}
    credentials: Credentials = RefreshableCredentials.create_from_metadata(fresh, lambda: fresh, "test")
    signer = Signer(build_clients(S3Settings(bucket="bucket"), "virtual").signer, "bucket", credentials)
    assert signer.lifetime(900.0) == 900.0
    # An hour is left, less what this machine took to come here.
    assert 1800 < signer.lifetime(86_400.0) <= 3600


def test_settings_do_not_show_their_secrets() -> None:
    settings = S3Settings(bucket="b", access_key="AKIA", secret_key="hush", session_token="hush-hush")
    assert "hush" not in repr(settings)


@pytest.mark.parametrize("half", [{"access_key": "AKIA"}, {"secret_key": "hush"}])
def test_one_half_of_the_credentials_is_refused(half: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        S3Settings(**{"bucket": "bucket", **half})


@pytest.mark.parametrize(
    ("base", "prefixes"),
    [("uploads", (".backhaul-probe/", "uploads/.backhaul-probe/")), ("", (".backhaul-probe/",))],
)
def test_probe_objects_are_outside_the_prefix_of_uploads_first(base: str, prefixes: tuple[str, ...]) -> None:
    assert S3Settings(bucket="b", base_path=base).probe_prefixes == prefixes
