"""Reads `LocalStatus` from the agent that runs on this device, and sends it a person's decisions.

Rule: each way to have no answer has its error, for each has another next step.
"""

import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from device_agent.local.model import LocalStatus
from device_agent.local.requests import Decided, Decision
from device_agent.local.server import ANSWER_PATIENCE
from device_agent.local.socket_path import DECISIONS, NAME, address_of

Answer = TypeVar("Answer")

_PATIENCE: Final = 2 * ANSWER_PATIENCE
_PAUSE: Final = 0.05
_BLOCK: Final = 64 * 1024
_MOST: Final = 16 * 1024 * 1024
"""Bytes of a document: root reads it from a process that is not root's."""


class NotRunning(Exception):
    """No agent listens in any of the folders."""


class NotAllowed(Exception):
    """The socket belongs to another user; its path is the text."""


class NoAnswer(Exception):
    """An agent runs, and its loop does not answer; `pid` is its process."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"the agent (process {pid}) runs, and does not answer: its disk may hang")
        self.pid = pid


def read_status(folders: Iterable[Path]) -> LocalStatus:
    """The state of the first agent that listens in one of `folders`.

    `NotAllowed`, `NoAnswer`, or `NotRunning` when there is none.
    """
    return _ask(folders, NAME, b"", LocalStatus)


def send_decision(folders: Iterable[Path], decision: Decision) -> Decided:
    """What the agent that listens in one of `folders` made of a decision; errors as in `read_status`."""
    return _ask(folders, DECISIONS, msgspec.json.encode(decision) + b"\n", Decided)


def _ask(folders: Iterable[Path], name: str, question: bytes, kind: type[Answer]) -> Answer:
    denied: Path | None = None
    for folder in folders:
        try:
            return _read(folder / name, question, kind)
        except PermissionError:
            denied = denied or folder / name
        except OSError:
            continue  # None, or one that a killed agent left.
    if denied is not None:
        raise NotAllowed(str(denied))
    raise NotRunning


def _read(path: Path, question: bytes, kind: type[Answer]) -> Answer:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        with address_of(path) as address:
            _connect(connection, address)
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if question:
            connection.sendall(question)
        data, until = bytearray(), time.monotonic() + _PATIENCE
        try:
            while block := connection.recv(_BLOCK):
                data += block
                if len(data) > _MOST or time.monotonic() > until:
                    raise NoAnswer(pid)
            return msgspec.json.decode(data, type=kind)
        except (OSError, msgspec.MsgspecError) as error:
            raise NoAnswer(pid) from error


def _connect(connection: socket.socket, address: str) -> None:
    """Connect, also while others wait: with a timeout, connect(2) fails at once where the queue is full."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.connect(address)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE)
        else:
            return
