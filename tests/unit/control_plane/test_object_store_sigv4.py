"""The signatures of `sigv4` equal botocore's, for any key, endpoint and credentials.

Rule: botocore signs first; `sigv4` signs for the instant in that URL, so no clock needs to be fixed.
"""

from calendar import timegm
from time import strptime
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import NoCredentialsError
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.object_store.sigv4 import QuerySigner, signer_for
from schemas.values import DigestName

PLACES: Final[tuple[dict[str, Any], ...]] = (
    {"endpoint_url": "http://store:9000"},
    {"endpoint_url": "http://store:80"},
    {"endpoint_url": "https://[::1]:9000/below/this"},
    {"endpoint_url": "https://Files.Example.org"},
    {"region_name": "us-east-1"},
    {"region_name": "ap-southeast-2", "aws_session_token": "to+ken/with=signs"},
)
HEADERS: Final = {
    DigestName.MD5: ("ContentMD5", "content-md5"),
    DigestName.SHA256: ("ChecksumSHA256", "x-amz-checksum-sha256"),
    DigestName.CRC32: ("ChecksumCRC32", "x-amz-checksum-crc32"),
}
KEYS: Final = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60)
IDS: Final = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
EXPIRES: Final = st.integers(1, 604_800)
TOKENS: Final = st.text("0123456789abcdef.", min_size=1, max_size=40)


def client_for(place: dict[str, Any]) -> Any:  # noqa: ANN401 - boto3's classes are made at run time
    style: Any = {"addressing_style": "path" if "endpoint_url" in place else "virtual"}
    style["us_east_1_regional_endpoint"] = "regional"
    config = Config(signature_version="s3v4", s3=style)
    whole = {
        "region_name": "eu-central-1",
        "aws_access_key_id": "AKIA+UNIT",
        "aws_secret_access_key": "s/cret",
        **place,
    }
    return boto3.session.Session().client("s3", config=config, **whole)


CLIENTS: Final = [client_for(place) for place in PLACES]


SIGNERS: Final = [signer_for(client, "bucket", client._request_signer._credentials) for client in CLIENTS]
PAIRS: Final = st.sampled_from(list(zip(CLIENTS, SIGNERS, strict=True)))


def instant_of(url: str) -> int:
    return timegm(strptime(parse_qs(urlsplit(url).query)["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ"))


@given(pair=PAIRS, key=KEYS, upload_id=IDS, number=st.integers(1, 10_000), size=st.integers(0, 2**40))
def test_a_part_is_signed_as_botocore_signs_it(
    pair: tuple[Any, QuerySigner], key: str, upload_id: str, number: int, size: int
) -> None:
    client, signer = pair
    seconds = 900
    params = {"Bucket": "bucket", "Key": key, "UploadId": upload_id, "PartNumber": number, "ContentLength": size}
    theirs = client.generate_presigned_url("upload_part", params, ExpiresIn=seconds)
    query, headers = {"uploadId": upload_id, "partNumber": str(number)}, {"content-length": str(size)}
    assert signer.url("PUT", key, query=query, headers=headers, expires=seconds, now=instant_of(theirs)) == theirs


@given(
    pair=PAIRS,
    key=KEYS,
    token=TOKENS,
    digest=st.sampled_from(list(HEADERS)),
    value=st.text("ABCxyz019+/=", min_size=1, max_size=44),
    once=st.booleans(),
)
def test_an_object_is_signed_as_botocore_signs_it(
    pair: tuple[Any, QuerySigner], key: str, token: str, digest: DigestName, value: str, *, once: bool
) -> None:
    client, signer = pair
    parameter, header = HEADERS[digest]
    params = {"Bucket": "bucket", "Key": key, "ContentLength": 7, "Metadata": {"backhaul-token": token}}
    headers = {"content-length": "7", "x-amz-meta-backhaul-token": token, header: value}
    params[parameter] = value
    if once:
        params |= {"IfNoneMatch": "*", "ServerSideEncryption": "AES256"}
        headers |= {"if-none-match": "*", "x-amz-server-side-encryption": "AES256"}
    theirs = client.generate_presigned_url("put_object", params, ExpiresIn=60)
    assert signer.url("PUT", key, query={}, headers=headers, expires=60, now=instant_of(theirs)) == theirs


@given(pair=PAIRS, key=KEYS, seconds=EXPIRES)
def test_reading_is_signed_as_botocore_signs_it(pair: tuple[Any, QuerySigner], key: str, seconds: int) -> None:
    client, signer = pair
    theirs = client.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": key}, ExpiresIn=seconds)
    assert signer.url("GET", key, query={}, headers={}, expires=seconds, now=instant_of(theirs)) == theirs


def test_without_credentials_nothing_is_signed() -> None:
    with pytest.raises(NoCredentialsError):
        signer_for(CLIENTS[0], "bucket", None)
