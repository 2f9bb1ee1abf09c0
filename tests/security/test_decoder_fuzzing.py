"""Bytes that began as good messages, damaged in many ways: each decoder reads them or raises its one error.

Rule: a bounded number of inputs, the same at each run; `FUZZ_ROUNDS` and `FUZZ_SEED` search further.
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from schemas.errors import SchemaError
from tests.unit.schemas.reading import READERS

GOLDEN: Final = Path(__file__).parents[1] / "contract" / "golden"
ROUNDS: Final = int(os.environ.get("FUZZ_ROUNDS", "20000"))
SEED: Final = int(os.environ.get("FUZZ_SEED", "1"))
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


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_message_is_read_or_refused_with_the_one_error(kind: str) -> None:
    drawn = random.Random(f"{SEED} {kind}")
    good, outcomes = seeds(), Counter[str]()
    for _ in range(ROUNDS):
        data = drawn.choice(good)
        for _ in range(drawn.randrange(1, 6)):
            data = drawn.choice(DAMAGES)(data, drawn)
        try:
            READERS[kind](data)
        except SchemaError:
            outcomes["refused"] += 1
        except Exception as error:  # noqa: BLE001 (any other is the finding)
            pytest.fail(f"{kind}: {data!r}: {error!r}")
        else:
            outcomes["read"] += 1
    assert outcomes["refused"] > ROUNDS / 10
    assert outcomes["read"] > 0
