"""The translation of the object store's answers and boto3's exceptions, and what their texts must not contain.

Rule: exceptions are built as botocore builds them; no server runs.
"""

from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.adapters.object_store.errors import translated
from control_plane.services.errors import (
    BadInput,
    ObjectStoreDown,
    ObjectStoreForbids,
    ObjectStoreRefused,
    ServiceError,
)

URL = "http://store/bucket/key?X-Amz-Credential=AKIA%2Fx&X-Amz-Signature=c0ffee&uploadId=abc"


def answer(
    code: str, status: int, message: str = "", headers: dict[str, str] | None = None, operation: str = "UploadPart"
) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    return ClientError(response, operation)


def translation(error: Exception) -> ServiceError:
    with pytest.raises(ServiceError) as caught, translated("UploadPart", "http://store"):
        raise error
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("InternalError", 500),
        ("InternalError", 200),
        ("SlowDown", 503),
        ("RequestTimeout", 400),
        ("RequestTimeTooSkewed", 403),
        ("OperationAborted", 409),
        ("ConditionalRequestConflict", 409),
        ("SomethingNew", 502),
        ("429", 429),
    ],
)
def test_a_transient_error_is_object_store_down(code: str, status: int) -> None:
    assert isinstance(translation(answer(code, status)), ObjectStoreDown)


@pytest.mark.parametrize("status", [301, 400, 403, 404, 405, 413])
@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "CompleteMultipartUpload", "ListParts"])
def test_an_error_page_of_a_proxy_is_object_store_down(operation: str, status: int) -> None:
    """If a body is no document of S3, botocore's code is the status, or empty if the body is XML."""
    for code in (str(status), ""):
        assert isinstance(translation(answer(code, status, operation=operation)), ObjectStoreDown)


@pytest.mark.parametrize("operation", ["HeadObject", "HeadBucket"])
def test_the_code_of_a_head_request_is_its_status(operation: str) -> None:
    error = translation(answer("405", 405, operation=operation))
    assert isinstance(error, ObjectStoreRefused)
    assert not isinstance(error, ObjectStoreForbids)


@pytest.mark.parametrize(
    "error",
    [
        answer("AccessDenied", 403),
        answer("InvalidAccessKeyId", 403),
        answer("SignatureDoesNotMatch", 403),
        answer("Unauthorized", 401),
        answer("ExpiredToken", 400),
        answer("400", 400, operation="HeadObject"),
        answer("403", 403, operation="HeadObject"),
        NoCredentialsError(),
    ],
    ids=str,
)
def test_missing_permission_is_object_store_forbids(error: Exception) -> None:
    """A new key may cure it; an object that is too small stays too small."""
    assert isinstance(translation(error), ObjectStoreForbids)


@pytest.mark.parametrize(("code", "status"), [("NoSuchUpload", 404), ("EntityTooSmall", 400), ("NoSuchBucket", 404)])
def test_a_refusal_of_the_request_is_not_object_store_forbids(code: str, status: int) -> None:
    assert not isinstance(translation(answer(code, status)), ObjectStoreForbids)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("NoSuchUpload", 404),
        ("InvalidPart", 400),
        ("AccessDenied", 403),
        ("EntityTooSmall", 400),
        ("PreconditionFailed", 412),
        ("BucketAlreadyExists", 409),
        ("NotImplemented", 501),
    ],
)
def test_a_permanent_error_is_refused_with_the_code_of_the_object_store(code: str, status: int) -> None:
    error = translation(answer(code, status))
    assert isinstance(error, ObjectStoreRefused)
    assert error.code == code


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url=URL),
        ReadTimeoutError(endpoint_url=URL),
        ConnectionResetError("reset"),
    ],
)
def test_no_answer_is_object_store_down_and_names_the_setting_but_no_url(error: Exception) -> None:
    down = translation(error)
    assert isinstance(down, ObjectStoreDown)
    assert "AWS_ENDPOINT" in str(down)
    assert "c0ffee" not in str(down)


@pytest.mark.parametrize("error", [ResponseParserError(f"invalid XML: {URL}"), KeyError("ContentLength")])
def test_an_answer_that_cannot_be_parsed_is_object_store_down(error: Exception) -> None:
    down = translation(error)
    assert isinstance(down, ObjectStoreDown)
    assert "c0ffee" not in str(down)


def test_urls_in_a_message_of_the_object_store_are_removed() -> None:
    text = str(translation(answer("AccessDenied", 403, f"no access to {URL}\nat all")))
    assert "c0ffee" not in text
    assert "AKIA" not in text
    assert "\n" not in text
    assert "no access to" in text


@pytest.mark.parametrize(
    ("code", "status", "setting"),
    [
        ("InvalidAccessKeyId", 403, "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, "AWS_SECRET_ACCESS_KEY"),
        ("NoSuchBucket", 404, "S3_BUCKET_NAME"),
        ("403", 403, "S3_BUCKET_NAME"),
        ("404", 404, "AWS_ENDPOINT"),
        ("PermanentRedirect", 301, "AWS_REGION"),
        ("RequestTimeTooSkewed", 403, "clock"),
    ],
)
def test_a_refusal_names_the_setting_to_check(code: str, status: int, setting: str) -> None:
    operation = "HeadObject" if code == str(status) and code != "404" else "UploadPart"
    assert setting in str(translation(answer(code, status, operation=operation)))


@pytest.mark.parametrize(
    ("code", "status"),
    [("InvalidPart", 400), ("InvalidRequest", 400), ("InvalidArgument", 400), ("SomethingNew", 403), ("NewCode", 301)],
)
def test_a_code_without_a_hint_gets_no_hint_by_its_status(code: str, status: int) -> None:
    """The kind: advice that does not follow from what was answered sends the operator to the wrong place."""
    assert str(translation(answer(code, status, "its message"))).endswith(f"answered {code}: its message")


def test_retry_after_of_the_object_store_is_passed_on() -> None:
    error = translation(answer("SlowDown", 503, headers={"retry-after": "17"}))
    assert isinstance(error, ObjectStoreDown)
    assert error.retry_after == 17


def test_missing_credentials_are_one_clear_sentence() -> None:
    error = translation(NoCredentialsError())
    assert isinstance(error, ObjectStoreRefused)
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in str(error)


def test_a_parameter_that_botocore_refuses_is_refused() -> None:
    assert isinstance(translation(ParamValidationError(report="bad bucket")), ObjectStoreRefused)


def test_service_errors_pass_unchanged() -> None:
    with pytest.raises(BadInput), translated("presigning", "http://store"):
        raise BadInput


@pytest.mark.parametrize("endpoint", ["store:9000", "http://"])
def test_an_endpoint_that_is_no_url_is_refused_at_the_start(endpoint: str) -> None:
    with pytest.raises(ObjectStoreRefused, match="AWS_ENDPOINT"):
        S3ObjectStore(S3Settings(bucket="bucket", endpoint=endpoint))
