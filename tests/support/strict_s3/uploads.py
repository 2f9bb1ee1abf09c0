"""Operations on multipart uploads.

Rule: a function from a call to its response; it raises `Refusal` before it changes anything. An upload ends when it is
completed or aborted: from then on every request that names it is `NoSuchUpload`.
"""

import hashlib
import zlib
from base64 import b64decode, b64encode
from itertools import pairwise
from typing import Final

from tests.support.strict_s3.answers import Answer, Call
from tests.support.strict_s3.documents import (
    CompletedPart,
    Field,
    checksum_fields,
    document,
    instant,
    read_completed_parts,
)
from tests.support.strict_s3.objects import check_free, encryption_header, etag_of, properties_of
from tests.support.strict_s3.refusals import Code, Refusal
from tests.support.strict_s3.storage import Multipart, Part, StoredObject

MAX_PARTS: Final = 10_000
MAX_PART: Final = 5 << 30


def create_multipart_upload(call: Call) -> Answer:
    properties, request = properties_of(call), call.request
    upload = call.storage.begin(request.bucket, request.key, properties, call.now)
    fields: list[Field] = [("Bucket", request.bucket), ("Key", request.key), ("UploadId", upload.upload_id)]
    return Answer(
        headers=encryption_header(properties), body=document("InitiateMultipartUploadResult", fields), done=True
    )


def upload_part(call: Call) -> Answer:
    upload, number = _upload(call), call.request.part_number
    if number is None or not 1 <= number <= MAX_PARTS:
        raise Refusal(Code.INVALID_ARGUMENT, "Part number must be an integer between 1 and 10000, inclusive")
    if call.blob.size > MAX_PART:
        raise Refusal(Code.ENTITY_TOO_LARGE, "Your proposed upload exceeds the maximum allowed object size.")
    _check_algorithm(upload, set(call.promise.checksums))
    if (old := upload.parts.get(number)) is not None:
        old.blob.delete()
    part = Part(call.blob, etag_of(call, upload.properties, call.blob.md5.hex()), call.promise.checksums, call.now)
    upload.parts[number] = part
    return Answer(headers={"ETag": f'"{part.etag}"', **encryption_header(upload.properties)}, done=True)


def complete_multipart_upload(call: Call) -> Answer:
    upload, named = _upload(call), read_completed_parts(call.document)
    parts = [_checked(upload, one) for one in named]
    _check_order(named)
    _check_sizes(call, parts)
    check_free(call)
    md5s = b"".join(part.blob.md5 for part in parts)
    etag = etag_of(call, upload.properties, hashlib.md5(md5s, usedforsecurity=False).hexdigest(), f"-{len(parts)}")
    blobs = tuple(part.blob for part in parts)
    made = StoredObject(blobs, etag, upload.properties, call.now, _checksums(upload, parts))
    call.storage.put(upload.bucket, upload.key, made)
    call.storage.end(upload, keep=blobs)
    fields: list[Field] = [("Bucket", upload.bucket), ("Key", upload.key), ("ETag", f'"{etag}"')]
    return Answer(body=document("CompleteMultipartUploadResult", fields), done=True)


def abort_multipart_upload(call: Call) -> Answer:
    call.storage.end(_upload(call))
    return Answer(204, done=True)


def list_parts(call: Call) -> Answer:
    upload, query = _upload(call), call.request.query
    after = int(query.get("part-number-marker") or 0)
    limit = min(int(query.get("max-parts", call.options.page_size)), call.options.page_size)
    numbers = sorted(number for number in upload.parts if number > after)
    page, more = numbers[:limit], len(numbers) > limit
    fields: list[Field] = [("Bucket", upload.bucket), ("Key", upload.key), ("UploadId", upload.upload_id)]
    fields += [("PartNumberMarker", after), ("NextPartNumberMarker", page[-1] if page else 0)]
    fields += [("MaxParts", limit), ("IsTruncated", more)]
    fields += [("Part", _listed_part(number, upload.parts[number])) for number in page]
    return Answer(body=document("ListPartsResult", fields))


def list_multipart_uploads(call: Call) -> Answer:
    query, bucket = call.request.query, call.request.bucket
    call.storage.bucket(bucket)
    prefix = query.get("prefix", "")
    after = (query.get("key-marker", ""), query.get("upload-id-marker", ""))
    limit = min(int(query.get("max-uploads", call.options.page_size)), call.options.page_size)
    uploads = sorted(
        (one for one in call.storage.uploads.values() if one.bucket == bucket and one.key.startswith(prefix)),
        key=lambda one: (one.key, one.upload_id),
    )
    rest = [one for one in uploads if (one.key, one.upload_id) > after] if any(after) else uploads
    page, more = rest[:limit], len(rest) > limit
    fields: list[Field] = [("Bucket", bucket), ("Prefix", prefix), ("MaxUploads", limit), ("IsTruncated", more)]
    if more and page:
        fields += [("NextKeyMarker", page[-1].key), ("NextUploadIdMarker", page[-1].upload_id)]
    fields += [("Upload", _listed_upload(one)) for one in page]
    return Answer(body=document("ListMultipartUploadsResult", fields))


def _upload(call: Call) -> Multipart:
    return call.storage.upload(call.request.bucket, call.request.key, call.request.upload_id)


def _check_algorithm(upload: Multipart, given: set[str]) -> None:
    """S3 rejects a part with another checksum algorithm than that of its upload (botocore #3216)."""
    wanted = {upload.properties.algorithm} - {None}
    if given != wanted:
        expected, actual = upload.properties.algorithm or "null", ", ".join(sorted(given)) or "null"
        text = f"Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {actual}"
        raise Refusal(Code.INVALID_REQUEST, text)


def _checked(upload: Multipart, named: CompletedPart) -> Part:
    part = upload.parts.get(named.number)
    if part is None or part.etag != named.etag:
        raise Refusal(Code.INVALID_PART, f"Part {named.number} could not be found, or its entity tag did not match.")
    algorithm = upload.properties.algorithm
    if algorithm is not None and not upload.properties.full_object and algorithm not in named.checksums:
        text = f"The upload was created using a {algorithm} checksum. The complete request must include the checksum"
        raise Refusal(
            Code.INVALID_REQUEST, f"{text} for each part. It was missing for part {named.number} in the request."
        )
    if any(part.checksums.get(name) != value for name, value in named.checksums.items()):
        raise Refusal(Code.INVALID_PART, f"The checksum of part {named.number} did not match.")
    return part


def _check_order(named: list[CompletedPart]) -> None:
    if any(one.number >= two.number for one, two in pairwise(named)):
        raise Refusal(Code.INVALID_PART_ORDER, "The list of parts was not in ascending order.")


def _check_sizes(call: Call, parts: list[Part]) -> None:
    if any(part.blob.size < call.options.min_part_size for part in parts[:-1]):
        raise Refusal(Code.ENTITY_TOO_SMALL, "Your proposed upload is smaller than the minimum allowed object size.")
    promised = call.request.headers.get("x-amz-mp-object-size")
    if promised is not None and promised != str(sum(part.blob.size for part in parts)):
        raise Refusal(Code.INVALID_REQUEST, "The provided x-amz-mp-object-size does not match the object's size.")


def _checksums(upload: Multipart, parts: list[Part]) -> dict[str, str]:
    algorithm = upload.properties.algorithm
    if algorithm is None:
        return {}
    if upload.properties.full_object:
        crc = 0
        for part in parts:
            if part.blob.path is not None:
                crc = zlib.crc32(part.blob.path.read_bytes(), crc)
        return {algorithm: b64encode(crc.to_bytes(4)).decode()}
    joined = b"".join(b64decode(part.checksums[algorithm]) for part in parts)
    whole = hashlib.sha256(joined).digest() if algorithm == "sha256" else zlib.crc32(joined).to_bytes(4)
    return {algorithm: f"{b64encode(whole).decode()}-{len(parts)}"}


def _listed_part(number: int, part: Part) -> list[Field]:
    fields: list[Field] = [("PartNumber", number), ("LastModified", instant(part.modified_at))]
    fields += [("ETag", f'"{part.etag}"'), ("Size", part.blob.size)]
    return fields + checksum_fields(dict(part.checksums))


def _listed_upload(upload: Multipart) -> list[Field]:
    return [("Key", upload.key), ("UploadId", upload.upload_id), ("Initiated", instant(upload.initiated_at))]
