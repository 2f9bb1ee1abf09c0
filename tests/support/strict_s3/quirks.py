"""Bad manners: each quirk is what some object store, or a proxy before one, really does.

Rule: one quirk is one entry of `Quirk`, with the text of its row in docs/reference/object-stores.md. It changes a
request, a call or an answer; the operations know nothing of it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from tests.support.strict_s3.answers import Answer, Call
from tests.support.strict_s3.bodies import DATA, Promise
from tests.support.strict_s3.refusals import Code, Refusal
from tests.support.strict_s3.requests import Operation, Request

OTHER_REGION: Final = "eu-west-9"
"""The region of the bucket under `Quirk.OTHER_REGION`."""

BARE_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "s3.test"})
"""Hosts that name no bucket. Under `Quirk.VIRTUAL_HOST_ONLY` the first label of any other host is the bucket."""

DIRECT_HOST: Final = "127.0.0.1"
"""The host that no proxy stands before, under the quirks of a proxy."""

_META: Final = "x-amz-meta-"
_CHECKSUM: Final = "x-amz-checksum-"
_ENCRYPTION: Final = "x-amz-server-side-encryption"
_READS: Final = frozenset({Operation.HEAD_OBJECT, Operation.GET_OBJECT})
_CREATES: Final = frozenset({Operation.PUT_OBJECT, Operation.CREATE_MULTIPART_UPLOAD})
_VERSIONED: Final = frozenset({Operation.PUT_OBJECT, Operation.COMPLETE_MULTIPART_UPLOAD, Operation.DELETE_OBJECT})
_HARD: Final = frozenset(" %+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """One quirk: what the `store` does, what the `product` does about it, and the `sign` by which one notices it.

    `refusal` is a pattern of what readiness says where uploads cannot work; without one the control plane is ready, and
    an upload is completed in its first attempt.

    `arrive` changes a request before its signature is verified, as a proxy would; `demand` refuses or changes a call
    whose signature is correct; `answer` changes the answer, also that of a refusal; `after` follows an
    operation that was done. `seconds` is waited before each
    answer, `interim` is sent before the body of a PUT is read, and `region` is the bucket's.
    """

    store: str
    product: str
    sign: str
    refusal: str = ""
    arrive: Callable[[Request], Request] | None = None
    demand: Callable[[Call], Call] | None = None
    answer: Callable[[Request, Answer], Answer] | None = None
    after: Callable[[Call, Answer], Answer] | None = None
    seconds: float = 0.0
    interim: bytes = b""
    region: str | None = None

    @property
    def wait(self) -> str | None:
        """The `reason_code` that an upload shows meanwhile."""
        return next(iter(self._signs("wait")), None)

    @property
    def proofs(self) -> frozenset[str]:
        """The proofs that a completed upload may have; empty where that is not the sign."""
        return frozenset(self._signs("proof"))

    @property
    def noted(self) -> bool:
        """Whether the probe has a note about it."""
        return self.sign == "note of the probe"

    def _signs(self, kind: str) -> list[str]:
        return re.findall("`(.+?)`", self.sign) if self.sign.startswith(f"{kind} ") else []


def _without(request: Request, *prefixes: str) -> Request:
    kept = {name: value for name, value in request.headers.items() if not name.startswith(prefixes)}
    return replace(request, headers=kept)


def _host(request: Request) -> str:
    return request.headers.get("host", "").rpartition(":")[0]


def _is_lifecycle(call: Call) -> bool:
    rules = {Operation.PUT_BUCKET_RULES, Operation.GET_BUCKET_RULES}
    return call.request.operation in rules and "lifecycle" in call.request.query


def _refused_when(wrong: Callable[[Call], bool], code: Code, text: str) -> Callable[[Call], Call]:
    def demand(call: Call) -> Call:
        if wrong(call):
            raise Refusal(code, text)
        return call

    return demand


def _forbidden(*operations: Operation) -> Callable[[Call], Call]:
    return _refused_when(lambda call: call.request.operation in operations, Code.ACCESS_DENIED, "Access Denied")


def _is_missing(call: Call) -> bool:
    if call.request.operation not in _READS:
        return False
    return call.request.key not in call.storage.bucket(call.request.bucket).objects


def _hides_new_objects(call: Call) -> Call:
    if call.request.operation in _READS:
        found = call.storage.object(call.request.bucket, call.request.key)
        if call.now < found.modified_at + call.options.hidden_for:
            raise Refusal(Code.NO_SUCH_KEY, "The specified key does not exist.")
    return call


def _remembers_missing_keys(call: Call) -> Call:
    if call.request.operation not in _READS:
        return call
    place = (call.request.bucket, call.request.key)
    if _is_missing(call):
        call.storage.missed[place] = call.now
    if call.now < call.storage.missed.get(place, -call.options.hidden_for) + call.options.hidden_for:
        raise Refusal(Code.NO_SUCH_KEY, "The specified key does not exist.")
    return call


def _needs_encryption(name: str) -> Callable[[Call], Call]:
    return _refused_when(
        lambda call: call.request.operation in _CREATES and call.request.headers.get(_ENCRYPTION) != name,
        Code.ACCESS_DENIED,
        "explicit deny in a resource-based policy",
    )


def _drops_metadata_of(*operations: Operation) -> Callable[[Call], Call]:
    def demand(call: Call) -> Call:
        if call.request.operation not in operations:
            return call
        return replace(call, request=_without(call.request, _META))

    return demand


def _names_bucket_in_host(request: Request) -> Request:
    if _host(request) in BARE_HOSTS:
        raise Refusal(Code.SECOND_LEVEL_DOMAIN_FORBIDDEN, "Please use virtual hosted style to access.")
    path = f"{request.bucket}/{request.key}" if request.key else request.bucket
    return replace(request, bucket=_host(request).partition(".")[0], key=path)


def _behind_proxy(change: Callable[[Request], Request]) -> Callable[[Request], Request]:
    return lambda request: request if _host(request) == DIRECT_HOST else change(request)


def _knows_no_checksums(call: Call) -> bool:
    names = [name for name in call.request.headers if name.startswith(_CHECKSUM)]
    return bool(set(names) - {f"{_CHECKSUM}mode"}) and call.request.operation in DATA | _CREATES


def _without_length(request: Request, answer: Answer) -> Answer:
    if request.method != "HEAD":
        return answer
    return replace(answer, headers={name: text for name, text in answer.headers.items() if name != "Content-Length"})


def _names_region(_request: Request, answer: Answer) -> Answer:
    return replace(answer, headers={**answer.headers, "x-amz-bucket-region": OTHER_REGION})


def _keeps_versions(call: Call, answer: Answer) -> Answer:
    bucket, key, version = call.request.bucket, call.request.key, call.request.query.get("versionId")
    if not answer.done or call.request.operation not in _VERSIONED:
        return answer
    if call.request.operation is Operation.DELETE_OBJECT and version is not None:
        call.storage.bucket(bucket).versions.pop(version, None)
        return answer
    made = call.storage.note_version(bucket, key)
    return replace(answer, headers={**answer.headers, "x-amz-version-id": made})


class Quirk(Enum):
    """Every quirk. A test gives a set of them to `Options`, or changes `StrictServer.quirks` while the double runs."""

    VISIBLE_LATE = Manner(
        store="shows a new object only after some seconds",
        product="looks again for minutes before it gives up an attempt; the attempt is not sent again",
        sign="wait `object_not_visible`",
        demand=_hides_new_objects,
    )
    REMEMBERED_404 = Manner(
        store="answers for some seconds that an object is missing because it was missing when last asked for",
        product="the same as for an object that is visible late",
        sign="wait `object_not_visible`",
        demand=_remembers_missing_keys,
    )
    OTHER_REGION = Manner(
        store="is in another region than `AWS_REGION`; calls are redirected, presigned URLs are refused",
        product="is not ready, and names the region of the bucket",
        sign="`AWS_REGION`",
        refusal="set AWS_REGION=eu-west-9",
        region=OTHER_REGION,
        answer=_names_region,
    )
    LOCK_WANTS_DIGEST = Manner(
        store="refuses a PUT without Content-MD5 or a checksum (default retention by Object Lock)",
        product="sends a digest with every PUT, in the probe too",
        sign="works",
        demand=_refused_when(
            lambda call: call.request.operation in DATA and call.promise.md5 is None and not call.promise.checksums,
            Code.INVALID_REQUEST,
            "Content-MD5 OR x-amz-checksum- HTTP header is required with Object Lock parameters",
        ),
    )
    DEMANDS_AES256 = Manner(
        store="refuses an object whose request does not ask for encryption (`AES256`)",
        product="asks for encryption when a request without it is refused",
        sign="`S3_ENCRYPTION=auto`",
        demand=_needs_encryption("AES256"),
    )
    DEMANDS_KMS = Manner(
        store="refuses an object whose request does not ask for encryption by KMS",
        product="asks for KMS when requests without it, and with AES256, are refused; an ETag then proves nothing",
        sign="`S3_ENCRYPTION=auto`",
        demand=_needs_encryption("aws:kms"),
    )
    CONTINUE_UNASKED = Manner(
        store="sends `100 Continue` although the request did not ask for it",
        product="takes an interim answer for no answer and sends the rest of the body",
        sign="works",
        interim=b"HTTP/1.1 100 Continue\r\n\r\n",
    )
    DROPS_METADATA = Manner(
        store="drops metadata (`x-amz-meta-*`) of every object",
        product="is not ready: the objects of uploads could not be recognised",
        sign="`GET /health/ready`",
        refusal="drops metadata",
        demand=_drops_metadata_of(*_CREATES),
    )
    DROPS_METADATA_OF_MULTIPART = Manner(
        store="drops metadata of CreateMultipartUpload and keeps that of PutObject",
        product="is not ready: the objects of large uploads could not be recognised",
        sign="`GET /health/ready`",
        refusal="drops metadata of CreateMultipartUpload",
        demand=_drops_metadata_of(Operation.CREATE_MULTIPART_UPLOAD),
    )
    TOKEN_ENDED = Manner(
        store="refuses every request because the session token has ended",
        product="waits for new credentials; the upload goes on with them",
        sign="wait `object_store_refused`",
        refusal="session token has expired",
        demand=_refused_when(lambda _: True, Code.EXPIRED_TOKEN, "The provided token has expired."),
    )
    NO_LIST_PERMISSION = Manner(
        store="answers HEAD and GET of a missing key with 403 (credentials without `s3:ListBucket`)",
        product="takes 403 for a missing object where the probe saw it for a missing key; is ready",
        sign="works",
        demand=_refused_when(
            lambda call: call.request.operation is Operation.LIST_OBJECTS or _is_missing(call),
            Code.ACCESS_DENIED,
            "Access Denied",
        ),
    )
    NO_LIST_UPLOADS_PERMISSION = Manner(
        store="refuses ListMultipartUploads (credentials without `s3:ListBucketMultipartUploads`)",
        product="is ready; cannot find what a killed probe left, and notes it",
        sign="note of the probe",
        demand=_forbidden(Operation.LIST_MULTIPART_UPLOADS),
    )
    NO_DELETE_PERMISSION = Manner(
        store="refuses DeleteObject",
        product="is ready; the objects of the probe have fixed names, so they stay but do not become more",
        sign="note of the probe",
        demand=_forbidden(Operation.DELETE_OBJECT),
    )
    HARD_NAMES_REFUSED = Manner(
        store="refuses keys with a space, `%`, `+` or a letter beyond ASCII",
        product="spells keys without the characters that it refuses; the file's name is in the metadata of the object",
        sign="note of the probe",
        demand=_refused_when(
            lambda call: bool(_HARD & set(call.request.key)) or not call.request.key.isascii(),
            Code.SIGNATURE_DOES_NOT_MATCH,
            "The request signature we calculated does not match",
        ),
    )
    LIFECYCLE_WANTS_MD5 = Manner(
        store="takes lifecycle rules only with Content-MD5",
        product="`backhaul doctor --fix` sends Content-MD5",
        sign="works",
        demand=_refused_when(
            lambda call: (
                _is_lifecycle(call)
                and call.request.operation is Operation.PUT_BUCKET_RULES
                and call.promise.md5 is None
            ),
            Code.INVALID_REQUEST,
            "Missing required header for this request: Content-MD5",
        ),
    )
    LIFECYCLE_OLD_FORM = Manner(
        store="takes lifecycle rules only in their old form: `Prefix`, without `Filter`",
        product="`backhaul doctor --fix` writes the form of the rules that are there, else tries both",
        sign="works",
        demand=_refused_when(
            lambda call: _is_lifecycle(call) and b"<Filter>" in call.document,
            Code.MALFORMED_XML,
            "The XML you provided was not well-formed or did not validate against our published schema",
        ),
    )
    KEEPS_VERSIONS = Manner(
        store="keeps versions: a DELETE leaves a marker, and an overwritten object stays",
        product="removes the objects of the probe by their version; what attempts left, by a marker",
        sign="works",
        after=_keeps_versions,
    )
    NO_LIFECYCLE = Manner(
        store="has no lifecycle rules",
        product="`backhaul doctor` says so; the control plane aborts what it knows",
        sign="`backhaul doctor`",
        demand=_refused_when(_is_lifecycle, Code.NOT_IMPLEMENTED, "Not implemented"),
    )
    VIRTUAL_HOST_ONLY = Manner(
        store="serves `bucket.host` only",
        product="tries both forms of address and keeps the one that works",
        sign="`S3_ADDRESSING=auto`",
        arrive=_names_bucket_in_host,
    )
    HEAD_WITHOUT_LENGTH = Manner(
        store="answers HEAD without Content-Length",
        product="reads the size from Content-Range of a GET of one byte",
        sign="works",
        answer=_without_length,
    )
    ABORT_OF_COMPLETED_FAILS = Manner(
        store="answers the abort of a completed multipart upload with an error",
        product="lists the parts: an upload without any is gone",
        sign="works",
        demand=_refused_when(
            lambda call: (
                call.request.operation is Operation.ABORT_MULTIPART_UPLOAD
                and call.request.upload_id not in call.storage.uploads
            ),
            Code.INVALID_REQUEST,
            "The upload cannot be aborted",
        ),
    )
    SLOW = Manner(
        store="takes 300 ms for each request",
        product="probes in parallel and keeps the result for an hour; limits are on silence, not on the sum",
        sign="works",
        seconds=0.3,
    )
    ETAG_NOT_MD5 = Manner(
        store="has ETags that are no MD5",
        product="proves by the checksum that HEAD shows, or by the digest that the store enforced",
        sign="proof `checksum` or `accepted`",
        demand=lambda call: replace(call, options=replace(call.options, opaque_etags=True)),
    )
    MD5_IGNORED = Manner(
        store="takes a PUT whose Content-MD5 is wrong",
        product="proves by the ETag, or uses another digest that is enforced",
        sign="`S3_DIGEST=auto`",
        demand=lambda call: replace(call, promise=replace(call.promise, md5=None)),
    )
    CHECKSUMS_IGNORED = Manner(
        store="ignores `x-amz-checksum-*`",
        product="uses MD5",
        sign="`S3_DIGEST=auto`",
        demand=lambda call: replace(
            call, request=_without(call.request, _CHECKSUM), promise=replace(call.promise, checksums={})
        ),
    )
    CHECKSUMS_UNKNOWN = Manner(
        store="answers 501 to `x-amz-checksum-*`",
        product="uses MD5",
        sign="`S3_DIGEST=auto`",
        demand=_refused_when(
            _knows_no_checksums, Code.NOT_IMPLEMENTED, "A header you provided implies functionality not implemented"
        ),
    )
    DIGESTS_IGNORED = Manner(
        store="enforces no digest at all",
        product="binds URLs to MD5 and proves by the ETag",
        sign="proof `etag`",
        demand=lambda call: replace(call, request=_without(call.request, _CHECKSUM), promise=Promise()),
    )
    CONDITION_IGNORED = Manner(
        store="ignores `If-None-Match`",
        product="sends files of one part by multipart, unless SHA-256 is enforced",
        sign="note of the probe",
        demand=lambda call: replace(call, request=_without(call.request, "if-none-match")),
    )
    CONDITION_UNKNOWN = Manner(
        store="answers 501 to `If-None-Match`",
        product="sends files of one part by multipart, unless SHA-256 is enforced",
        sign="note of the probe",
        demand=_refused_when(
            lambda call: "if-none-match" in call.request.headers,
            Code.NOT_IMPLEMENTED,
            "A header you provided implies functionality that is not implemented",
        ),
    )
    PROXY_STRIPS_MD5 = Manner(
        store="stands behind a proxy, for devices, that removes Content-MD5: signatures are wrong",
        product="uses a checksum; when none works, is not ready and names the header",
        sign="`S3_DIGEST=auto`",
        arrive=_behind_proxy(lambda request: _without(request, "content-md5")),
    )
    PROXY_STRIPS_METADATA = Manner(
        store="stands behind a proxy, for devices, that removes `x-amz-meta-*`: signatures of one PUT are wrong",
        product="sends every file by multipart",
        sign="note of the probe",
        arrive=_behind_proxy(lambda request: _without(request, _META)),
    )
    PROXY_REWRITES_HOST = Manner(
        store="stands behind a proxy, for devices, that changes Host: signatures are wrong",
        product="is not ready, and says that Host has to reach the object store as it was sent",
        sign="`S3_PUBLIC_ENDPOINT`",
        refusal="S3_PUBLIC_ENDPOINT .*Host",
        arrive=_behind_proxy(lambda request: replace(request, headers={**request.headers, "host": "store.internal"})),
    )
