"""The error table as protocol.md section 4 lists it, extensible lists, and digests.

Rule: the table is repeated here as the protocol prints it, so that neither can change alone.
"""

import re
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.digests import DIGEST_BYTES, raw_digest
from schemas.names import UPLOAD_ID_PATTERN
from schemas.values import ERRORS, DigestName, ErrorCode, Follow, Outcome, ResponseStatus

PROTOCOL_TABLE = [
    (
        "path_not_allowed host_not_allowed file_too_large not_a_file bad_signature unsupported after_not_allowed",
        ResponseStatus.REJECTED,
        Follow.FINAL,
    ),
    (
        "url_expired storage_unavailable storage_refused busy no_space stale_epoch internal",
        ResponseStatus.ERROR,
        Follow.SAME_ATTEMPT,
    ),
    ("source_changed upload_gone digest_mismatch", ResponseStatus.ERROR, Follow.NEW_ATTEMPT),
    (
        "file_not_found permission_denied source_gone source_unreadable bad_request owner_silent no_progress",
        ResponseStatus.ERROR,
        Follow.FINAL,
    ),
    (
        "after_not_possible",
        ResponseStatus.ERROR,
        Follow.FINAL,
    ),
]


def test_the_error_table_is_that_of_the_protocol() -> None:
    listed = {code: (status, follow) for codes, status, follow in PROTOCOL_TABLE for code in codes.split()}
    known = {str(code): (rule.travels_as, rule.follow) for code, rule in ERRORS.items() if code != "unknown"}
    assert known == listed


def test_every_code_has_a_rule_and_a_meaning() -> None:
    assert set(ERRORS) == set(ErrorCode)
    sentences = [rule.meaning for rule in ERRORS.values()]
    assert len(set(sentences)) == len(sentences)
    assert all(sentences)


def test_an_unknown_code_is_final() -> None:
    assert ERRORS[ErrorCode.read("battery_low")].follow is Follow.FINAL


@pytest.mark.parametrize("values", [ErrorCode, ResponseStatus, Outcome])
@given(text=st.text(max_size=20))
def test_any_text_can_be_read(values: type[ErrorCode | ResponseStatus | Outcome], text: str) -> None:
    known = {str(value) for value in values}
    assert values.read(text) == (text if text in known else "unknown")
    assert all(values.read(value) == value for value in known)


@pytest.mark.parametrize("name", DIGEST_BYTES)
@given(data=st.data())
def test_a_digest_has_one_text(name: DigestName, data: st.DataObject) -> None:
    raw = data.draw(st.binary(min_size=DIGEST_BYTES[name], max_size=DIGEST_BYTES[name]))
    assert raw_digest(name, b64encode(raw).decode()) == raw


@pytest.mark.parametrize("name", DigestName)
@given(text=st.text(max_size=60) | st.binary(max_size=40).map(lambda raw: b64encode(raw).decode()))
def test_a_text_that_is_no_digest_of_its_kind_is_none(name: DigestName, text: str) -> None:
    raw = raw_digest(name, text)
    assert raw is None or (len(raw) == DIGEST_BYTES[name] and b64encode(raw).decode() == text)


@pytest.mark.parametrize("text", ["AAAAAR==", "AAAAAQ", "AAAA AQ==", "AAAAAQ==\n", "AAAAAQ==AAAA", "ü", "-_-_-w=="])
def test_another_text_of_a_digest_is_none(text: str) -> None:
    assert raw_digest(DigestName.CRC32, text) is None


@pytest.mark.parametrize("upload_id", [".", "..", ".a", "", "a" * 65, "a/b", "a\n"])
def test_an_id_that_no_url_can_carry_is_refused(upload_id: str) -> None:
    """A client of HTTP removes `.` and `..` from a path, so such an upload could be neither shown nor cancelled."""
    assert re.search(UPLOAD_ID_PATTERN, upload_id) is None
    assert re.search(UPLOAD_ID_PATTERN, "a..b.") is not None
