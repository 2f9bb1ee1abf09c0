"""Bytes that began as good messages, damaged in many ways: each decoder reads them or raises its one error.

Rule: a bounded number of inputs, the same at each run; `FUZZ_ROUNDS` and `FUZZ_SEED` search further.
"""

import io
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

import msgspec
import pytest

import schemas
from device_agent.enrolment.bundle import read_bundle
from device_agent.enrolment.request_file import StoredRequest, read_request
from device_agent.errors import SettingsError
from schemas.errors import SchemaError
from schemas.receipts.envelope import decode_envelope, encode_envelope, seal_payload
from schemas.receipts.statement import decode_statement
from schemas.signing.documents import SignedDocument
from schemas.signing.enrolment import Bundle
from schemas.signing.trust import decode_trust
from tests.unit.schemas.reading import READERS
from tests.unit.schemas.receipts.test_envelope import SIGNER, a_payload

GOLDEN: Final = Path(__file__).parents[1] / "contract" / "golden"
ROUNDS: Final = int(os.environ.get("FUZZ_ROUNDS", "20000"))
SEED: Final = int(os.environ.get("FUZZ_SEED", "1"))
DOCUMENTS: Final = min(ROUNDS, 2_000)
"""Rounds for each kind that is no message."""

PUBLISHED: Final = json.loads((Path(schemas.__file__).parent / "vectors" / "signing.json").read_bytes())["trust"][
    "published"
]
TOKENS: Final = (
    *(b'"', b"\\\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"-1", b"1e999", b"NaN", b"0.5"),
    *(
        b"\\u0000",
        b"\\ud800",
        b"\xff",
        b"\xc0\x80",
        b"\xef\xbb\xbf",
        b"9" * 40,
        b"[" * 40,
        b'"a":' * 20,
        b"../",
        b"%00",
    ),
)


def cut(data: bytes, drawn: random.Random) -> bytes:
    """A part is left out."""
    begin = drawn.randrange(len(data) + 1)
    return data[:begin] + data[begin + drawn.randrange(1, 12) :]


def put(data: bytes, drawn: random.Random) -> bytes:
    """A token is put in, or in place of bytes."""
    begin = drawn.randrange(len(data) + 1)
    return data[:begin] + drawn.choice(TOKENS) + data[begin + drawn.choice((0, 0, 1, 4)) :]


def flip(data: bytes, drawn: random.Random) -> bytes:
    """One bit of one byte."""
    if not data:
        return data
    at = drawn.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << drawn.randrange(8),)) + data[at + 1 :]


def repeat(data: bytes, drawn: random.Random) -> bytes:
    """A part stands twice: a name of an object twice, one object in another."""
    begin = drawn.randrange(len(data) + 1)
    part = data[begin : begin + drawn.randrange(1, 60)]
    at = drawn.randrange(len(data) + 1)
    return data[:at] + part + data[at:]


DAMAGES: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (cut, put, flip, repeat)


def seeds() -> list[bytes]:
    """The messages of the contract tests."""
    return [path.read_bytes() for path in sorted(GOLDEN.rglob("*.json"))]


def read_damaged(
    reader: Callable[[bytes], object],
    good: Sequence[bytes],
    refusal: type[Exception],
    drawn: random.Random,
    rounds: int,
) -> Counter[str]:
    """How many damaged inputs were read, and how many refused; any other error fails the test."""
    outcomes = Counter[str]()
    for _ in range(rounds):
        data = drawn.choice(good)
        for _ in range(drawn.randrange(1, 6)):
            data = drawn.choice(DAMAGES)(data, drawn)
        try:
            reader(data)
        except refusal:
            outcomes["refused"] += 1
        except Exception as error:  # noqa: BLE001 (any other is the finding)
            pytest.fail(f"{data!r}: {error!r}")
        else:
            outcomes["read"] += 1
    return outcomes


def request_in(place: Path) -> object:
    """The request of a device in a file; `SchemaError` where the device begins anew."""
    found = read_request(place, "https://a.example", "ab")
    if found is None:
        text = "no request"
        raise SchemaError(text)
    return found


class InMemory:
    """What a reader needs of the path of a file; a disk would make thousands of files slow."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self, mode: str) -> io.BytesIO:
        """The file, from its beginning; it can be read alone."""
        assert mode == "rb"
        return io.BytesIO(self._data)


def from_file(reader: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Reads bytes with a reader of files."""
    return lambda data: reader(cast("Path", InMemory(data)))


def bundle_bytes() -> bytes:
    """A bundle with every member that a device uses."""
    root = msgspec.convert(PUBLISHED["roots"][0], SignedDocument)
    return msgspec.json.encode(
        Bundle(
            client_id="till-7",
            mqtt_url="mqtts://broker.example:8883",
            mqtt_password="secret",
            root=root,
            claim_secret="A" * 43,
            allowed_roots=("/data",),
            labels={"site": "berlin"},
        )
    )


def request_bytes() -> bytes:
    """A request that waits."""
    return msgspec.json.encode(
        StoredRequest(url="https://a.example", root_sha256="ab", seed="A" * 43, opens="A" * 43, user_code="4F7K-2QXM")
    )


ENVELOPE: Final = encode_envelope(seal_payload(a_payload(), SIGNER.verifier.kid, b"s" * 64))
DEEP: Final = (b'{"x":' + b"[" * 5_000, b'{"x":' * 5_000, b"[" * 5_000, b'{"labels":' * 5_000)
"""Nested beyond what any reader follows, in members that no shape has, and in some that it has."""

OTHERS: Final[dict[str, tuple[Callable[[bytes], object], bytes, type[Exception]]]] = {
    "keys": (decode_trust, msgspec.json.encode(PUBLISHED), SchemaError),
    "envelope": (decode_envelope, ENVELOPE, SchemaError),
    "statement": (decode_statement, a_payload(), SchemaError),
    "bundle": (from_file(read_bundle), bundle_bytes(), SettingsError),
    "request": (from_file(request_in), request_bytes(), SchemaError),
}
"""What is no message: its reader, a good one, and the error of the others."""


@pytest.mark.parametrize("kind", OTHERS)
def test_a_damaged_document_is_read_or_refused_with_the_one_error(kind: str) -> None:
    read, good, refusal = OTHERS[kind]
    assert read(good) is not None
    for deep in DEEP:
        with pytest.raises(refusal):
            read(deep)
    outcomes = read_damaged(read, [good], refusal, random.Random(f"{SEED} {kind}"), DOCUMENTS)
    assert outcomes["refused"] > DOCUMENTS / 10


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_message_is_read_or_refused_with_the_one_error(kind: str) -> None:
    drawn = random.Random(f"{SEED} {kind}")
    outcomes = read_damaged(READERS[kind], seeds(), SchemaError, drawn, ROUNDS)
    assert outcomes["refused"] > ROUNDS / 10
    assert outcomes["read"] > 0
