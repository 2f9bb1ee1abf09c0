"""Operations on buckets and whole objects.

Rule: a function from a call to its response; it raises `Refusal` before it changes anything.
"""

import re
import secrets
from email.utils import formatdate
from typing import Final

from tests.support.strict_s3.answers import Answer, Call
from tests.support.strict_s3.documents import Field, document, instant
from tests.support.strict_s3.refusals import Code, Refusal
from tests.support.strict_s3.requests import RULES
from tests.support.strict_s3.storage import Bucket, ObjectProperties, StoredObject

META: Final = "x-amz-meta-"
MAX_METADATA: Final = 2048
MAX_KEY_BYTES: Final = 1024
MAX_PUT: Final = 5 << 30
_BUCKET_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")
_ABSENT: Final = {
    "lifecycle": Code.NO_SUCH_LIFECYCLE_CONFIGURATION,
    "publicAccessBlock": Code.NO_SUCH_PUBLIC_ACCESS_BLOCK_CONFIGURATION,
}


def create_bucket(call: Call) -> Answer:
    name = call.request.bucket
    if not _BUCKET_NAME.fullmatch(name):
        raise Refusal(Code.INVALID_BUCKET_NAME, "The specified bucket is not valid.")
    if name in call.storage.buckets:
        raise Refusal(Code.BUCKET_ALREADY_OWNED_BY_YOU, "Your previous request to create the named bucket succeeded.")
    call.storage.buckets[name] = Bucket()
    return Answer(headers={"Location": f"/{name}"}, done=True)


def head_bucket(call: Call) -> Answer:
    call.storage.bucket(call.request.bucket)
    return Answer()


def delete_bucket(call: Call) -> Answer:
    if call.storage.bucket(call.request.bucket).objects:
        raise Refusal(Code.BUCKET_NOT_EMPTY, "The bucket you tried to delete is not empty")
    del call.storage.buckets[call.request.bucket]
    return Answer(204, done=True)


def get_bucket_location(call: Call) -> Answer:
    call.storage.bucket(call.request.bucket)
    return Answer(body=document("LocationConstraint", ()))


def put_bucket_rules(call: Call) -> Answer:
    name = next(rule for rule in RULES if rule in call.request.query)
    if call.promise.md5 is None and not call.promise.checksums:
        raise Refusal(Code.INVALID_REQUEST, "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
    call.storage.bucket(call.request.bucket).rules[name] = call.document
    return Answer(done=True)


def get_bucket_rules(call: Call) -> Answer:
    name = next(rule for rule in RULES if rule in call.request.query)
    rules = call.storage.bucket(call.request.bucket).rules
    if name not in rules:
        raise Refusal(_ABSENT[name], "The configuration does not exist")
    return Answer(body=rules[name])


def list_objects(call: Call) -> Answer:
    objects, query = call.storage.bucket(call.request.bucket).objects, call.request.query
    prefix, after = query.get("prefix", ""), query.get("continuation-token") or query.get("start-after", "")
    keys = sorted(key for key in objects if key.startswith(prefix) and key > after)
    limit = min(int(query.get("max-keys", call.options.page_size)), call.options.page_size)
    page, more = keys[:limit], len(keys) > limit
    fields: list[Field] = [("Name", call.request.bucket), ("Prefix", prefix), ("KeyCount", len(page))]
    fields += [("MaxKeys", limit), ("IsTruncated", more)]
    if more and page:
        fields.append(("NextContinuationToken", page[-1]))
    fields += [("Contents", _listed(key, objects[key])) for key in page]
    return Answer(body=document("ListBucketResult", fields))


def put_object(call: Call) -> Answer:
    request = call.request
    check_free(call)
    if call.blob.size > MAX_PUT:
        raise Refusal(Code.ENTITY_TOO_LARGE, "Your proposed upload exceeds the maximum allowed object size.")
    properties, checksums = properties_of(call), call.promise.checksums
    etag = etag_of(call, properties, call.blob.md5.hex())
    made = StoredObject((call.blob,), etag, properties, call.now, checksums)
    call.storage.put(request.bucket, request.key, made)
    return Answer(headers={"ETag": f'"{etag}"', **encryption_header(properties)}, done=True)


def head_object(call: Call) -> Answer:
    found = call.storage.object(call.request.bucket, call.request.key)
    return Answer(headers={**_headers(call, found), "Content-Length": str(found.size)})


def get_object(call: Call) -> Answer:
    found = call.storage.object(call.request.bucket, call.request.key)
    headers = _headers(call, found)
    wanted = _RANGE.fullmatch(call.request.headers.get("range", ""))
    if wanted is None:
        return Answer(headers={**headers, "Content-Length": str(found.size)}, stream=found.chunks(0, found.size))
    start, end = _span(wanted[1], wanted[2], found.size)
    headers |= {"Content-Length": str(end - start), "Content-Range": f"bytes {start}-{end - 1}/{found.size}"}
    return Answer(206, headers, stream=found.chunks(start, end))


def delete_object(call: Call) -> Answer:
    return Answer(204, done=call.storage.remove(call.request.bucket, call.request.key))


def check_free(call: Call) -> None:
    """`PreconditionFailed` when the object may be created only once and exists."""
    condition = call.request.headers.get("if-none-match")
    if condition not in {None, "*"}:
        raise Refusal(Code.NOT_IMPLEMENTED, "If-None-Match takes only *")
    if len(call.request.key.encode()) > MAX_KEY_BYTES:
        raise Refusal(Code.INVALID_ARGUMENT, "Your key is too long")
    if condition == "*" and call.request.key in call.storage.bucket(call.request.bucket).objects:
        raise Refusal(Code.PRECONDITION_FAILED, "At least one of the pre-conditions you specified did not hold")


def properties_of(call: Call) -> ObjectProperties:
    """The properties that a request sets for a new object."""
    headers = call.request.headers
    metadata = {name.removeprefix(META): value for name, value in headers.items() if name.startswith(META)}
    if sum(len(name) + len(value) for name, value in metadata.items()) > MAX_METADATA:
        raise Refusal(Code.METADATA_TOO_LARGE, "Your metadata headers exceed the maximum allowed metadata size")
    algorithm = headers.get("x-amz-checksum-algorithm", "").lower() or None
    full_object = headers.get("x-amz-checksum-type") == "FULL_OBJECT"
    if algorithm not in {None, "sha256", "crc32"} or (full_object and algorithm != "crc32"):
        raise Refusal(Code.INVALID_REQUEST, "The checksum algorithm or type is not supported")
    encryption = headers.get("x-amz-server-side-encryption") or call.options.encryption
    content_type = headers.get("content-type", "binary/octet-stream")
    return ObjectProperties(metadata, encryption, content_type, algorithm, full_object)


def etag_of(call: Call, properties: ObjectProperties, md5: str, suffix: str = "") -> str:
    """The ETag: the MD5, unless the object is encrypted with a key of KMS, or ETags are opaque."""
    opaque = properties.encryption == "aws:kms" or call.options.opaque_etags
    return (secrets.token_hex(16) if opaque else md5) + suffix


def encryption_header(properties: ObjectProperties) -> dict[str, str]:
    """How the object is encrypted."""
    return {"x-amz-server-side-encryption": properties.encryption} if properties.encryption else {}


def _headers(call: Call, found: StoredObject) -> dict[str, str]:
    headers = {
        "ETag": f'"{found.etag}"',
        "Last-Modified": formatdate(found.modified_at, usegmt=True),
        "Content-Type": found.properties.content_type,
        "Accept-Ranges": "bytes",
        **encryption_header(found.properties),
        **{f"{META}{name}": value for name, value in found.properties.metadata.items()},
    }
    if call.request.headers.get("x-amz-checksum-mode") == "ENABLED":
        headers |= {f"x-amz-checksum-{name}": value for name, value in found.checksums.items()}
    return headers


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    start, end = (int(first), int(last or size) + bool(last)) if first else (size - int(last or 0), size)
    start, end = max(start, 0), min(end, size)
    if start >= end:
        raise Refusal(Code.INVALID_RANGE, "The requested range is not satisfiable")
    return start, end


def _listed(key: str, found: StoredObject) -> list[Field]:
    etag = f'"{found.etag}"'
    return [("Key", key), ("LastModified", instant(found.modified_at)), ("ETag", etag), ("Size", found.size)]
