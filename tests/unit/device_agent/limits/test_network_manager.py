"""NetworkManager over D-Bus: a bus of the test answers as the specification has it, or badly."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_agent.limits.network_manager import link_is_metered


def answer(serial: int, kind: int, signature: str, body: bytes) -> bytes:
    fields = struct.pack("<BBcxI", 5, 1, b"u", serial)
    if signature:
        fields += bytes([8, 1]) + b"g\0" + bytes([len(signature)]) + signature.encode() + b"\0"
    sender = b"org.freedesktop.DBus"
    fields += b"\0" * (-len(fields) % 8) + bytes([7, 1]) + b"s\0" + struct.pack("<I", len(sender)) + sender + b"\0"
    head = struct.pack("<4BIII", ord("l"), kind, 1, 1, len(body), 7, len(fields))
    return head + fields + b"\0" * (-len(fields) % 8) + body


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode() + b"\0"


SIGNAL = answer(0, 4, "s", text(":1.7"))
NAME = answer(1, 2, "s", text(":1.7"))


@contextmanager
def bus(folder: Path, *answers: bytes, greets: bytes = b"OK 1234\r\n") -> Iterator[tuple[str, list[bytes]]]:
    """A bus that sends one answer to each call; its path, and what it received."""
    path, received = str(folder / "bus"), list[bytes]()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                for reply in (greets, *answers):
                    data = connection.recv(4096)
                    received.append(data + connection.recv(4096) if data == b"BEGIN\r\n" else data)
                    connection.sendall(reply)
                connection.settimeout(60)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path, received
        thread.join(60)


@pytest.mark.parametrize(("value", "metered"), [(0, False), (1, True), (2, False), (3, True), (4, False)])
def test_the_property_of_network_manager_decides(tmp_path: Path, value: int, metered: bool) -> None:  # noqa: FBT001
    body = b"\x01u\0\0" + struct.pack("<I", value)
    with bus(tmp_path, NAME + SIGNAL, answer(2, 2, "v", body)) as (path, received):
        assert link_is_metered(path) is metered
    assert received[0].startswith(b"\0AUTH EXTERNAL ")
    assert b"Hello" in received[1]
    assert b"org.freedesktop.DBus.Properties" in received[2]


@pytest.mark.parametrize(
    "answers",
    [
        (NAME, answer(2, 3, "s", text("org.freedesktop.DBus.Error.ServiceUnknown"))),
        (NAME, answer(2, 2, "v", b"\x01s\0\0" + text("yes"))),
        (NAME, b"B" + answer(2, 2, "v", b"")[1:]),
        (b"no message at all",),
    ],
    ids=["not-there", "no-number", "big-endian", "noise"],
)
def test_an_answer_that_is_none_is_none(tmp_path: Path, answers: tuple[bytes, ...]) -> None:
    with bus(tmp_path, *answers) as (path, _):
        assert link_is_metered(path) is None


def test_a_bus_that_lets_nobody_in_or_is_not_there_is_none(tmp_path: Path) -> None:
    with bus(tmp_path, greets=b"REJECTED EXTERNAL\r\n") as (path, _):
        assert link_is_metered(path) is None
    assert link_is_metered(str(tmp_path / "none")) is None
