"""A secret is found by its parameter's name, in every shape of text that a library or an error may print."""

import time

import pytest

from schemas.redaction import REDACTED, without_secrets

SHAPES = (
    "https://s3.example/b/k?X-Amz-Credential={0}&X-Amz-Signature={0}",
    "HTTPS://s3.example/b/k?X-Amz-Signature={0}",
    "GET /b/k?X-Amz-Date=1&X-Amz-Signature={0} HTTP/1.1",
    "CanonicalRequest:\nGET\n/b/k\nX-Amz-Credential={0}%2Fus-east-1&X-Amz-Date=1\nx-amz-security-token:{0}\n",
    "X-Amz-Security-Token%3D{0}%26x",
    "{{'Authorization': b'AWS4-HMAC-SHA256 Credential={0}, SignedHeaders=host, Signature={0}'}}",
    "send: b'PUT /k HTTP/1.1\\r\\nAuthorization: AWS4-HMAC-SHA256 Credential={0}, Signature={0}\\r\\n'",
    "authorization: Bearer {0}",
    "Illegal header value b'Bearer {0}\\n'",
    "Basic {0}",
    "password={0}",
    "{{'X-Amz-Signature': '{0}', 'other': 1}}",
    '{{"secret_key": "{0} with spaces"}}',
    "mqtts://me:c0ffee0123456789@broker:8883",
    "AWS_SESSION_TOKEN={0}",
)
CANARY = "c0ffee/Canary+0123456789=="


@pytest.mark.parametrize("shape", SHAPES)
def test_a_secret_is_removed_whatever_the_text_around_it_is(shape: str) -> None:
    text = without_secrets(shape.format(CANARY))
    assert "c0ffee" not in text
    assert "0123456789" not in text
    assert REDACTED in text


@pytest.mark.parametrize(
    "text",
    [
        "see https://store/key and more",
        "/data/a?b=c",
        "the token has expired",
        "the signature is not valid here: ask again",
        "X-Amz-Date=20251101T100000Z&X-Amz-Expires=900",
        "upload_id=secretary-1 part=3",
        "basic checks were done",
    ],
)
def test_other_text_is_unchanged(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "part", ["a-", "token", "token-", "://", "a://", "a.", "'token", "'a-", "token ", "authorization", "bearer "]
)
def test_the_cost_grows_with_the_length_of_the_text_and_not_with_its_square(part: str) -> None:
    """The kind: super-linear work on foreign input. A line is formatted where it is logged, on the loop too."""
    text = f"token {part * (60_000 // len(part))}"
    began = time.thread_time()
    without_secrets(text)
    assert time.thread_time() - began < 2
