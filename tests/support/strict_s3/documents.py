"""The XML documents of S3 that the double writes and reads.

Rule: text in, text out; names and order are those of the S3 API reference.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from tests.support.strict_s3.refusals import Code, Refusal

_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_CHECKSUM_TAGS: Final = {"ChecksumSHA256": "sha256", "ChecksumCRC32": "crc32"}

Field = tuple[str, "str | int | bool | list[Field]"]


@dataclass(frozen=True, slots=True)
class CompletedPart:
    """One part as Complete names it; `etag` is without quotes."""

    number: int
    etag: str
    checksums: dict[str, str] = field(default_factory=dict)


def document(name: str, fields: Iterable[Field]) -> bytes:
    """One document."""
    inside = "".join(_element(*pair) for pair in fields)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{_NAMESPACE}">{inside}</{name}>'.encode()


def instant(seconds: float) -> str:
    """A time as S3 writes it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.000Z}"


def checksum_fields(checksums: dict[str, str] | None) -> list[Field]:
    """The elements of checksums."""
    return [(tag, checksums[name]) for tag, name in _CHECKSUM_TAGS.items() if checksums and name in checksums]


def read_completed_parts(body: bytes) -> list[CompletedPart]:
    """The parts that Complete names, in its order; `MalformedXML` when it is not such a document."""
    try:
        root = ET.fromstring(body)  # noqa: S314 - written by the clients under test
        parts = [_completed_part(element) for element in root if _local(element.tag) == "Part"]
    except (ET.ParseError, KeyError, ValueError):
        parts = []
    if not parts:
        raise Refusal(Code.MALFORMED_XML, "The XML you provided was not well-formed")
    return parts


def _completed_part(element: ET.Element) -> CompletedPart:
    fields = {_local(child.tag): (child.text or "").strip() for child in element}
    checksums = {name: fields[tag] for tag, name in _CHECKSUM_TAGS.items() if tag in fields}
    return CompletedPart(int(fields["PartNumber"]), fields["ETag"].strip('"'), checksums)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _element(name: str, value: "str | int | bool | list[Field]") -> str:
    if isinstance(value, list):
        return f"<{name}>{''.join(_element(*pair) for pair in value)}</{name}>"
    text = str(value).lower() if isinstance(value, bool) else escape(str(value))
    return f"<{name}>{text}</{name}>"
