"""Real S3 servers for tests, as child processes on free ports of loopback: nanio and moto.

Rule: each server is a child of the test run and has been seen to listen.

`start_nanio` is the product's own `start_folder_store` with known credentials. moto enforces nothing at all
(reliability.md 0.10): it shows that requests are valid S3, not that anything is rejected.
"""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import pytest

from broker.child_process import ChildProcess
from broker.server import free_port
from control_plane.adapters.folder_store import FolderCredentials, FolderObjectStore, start_folder_store
from schemas.values import PresignedPart

ACCESS_KEY: Final = "AKIATESTTESTTESTTEST"
SECRET_KEY: Final = "test/secret+key/of/a/throw-away/server00"
READY_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server. `directory` holds its log and, of nanio, the objects below `objects/{bucket}/{key}`."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str
    directory: Path
    stop: Callable[[], None] = field(repr=False)
    """Ends it; does nothing when it has ended."""

    kill: Callable[[], None] = field(repr=False)
    """SIGKILL."""

    start: Callable[[], None] = field(repr=False)
    """Starts it again on the same port, over the same directory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def object_path(self, bucket: str, key: str) -> Path:
        """Of nanio: the plain file that is the object."""
        return self.directory / "objects" / bucket / key


def start_nanio(
    directory: Path, *, port: int | None = None, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY
) -> S3Server:
    """A running nanio over `directory` that enforces signatures; it ends with `stop()` or with this process."""
    store = start_folder_store(directory, port=port, credentials=FolderCredentials(access_key, secret_key))
    return _server_of(store)


def start_moto(directory: Path) -> S3Server:
    """A running moto server; it keeps everything in memory and accepts any signature."""
    directory.mkdir(parents=True, exist_ok=True)
    moto = _Moto(directory)
    moto.start()
    endpoint = f"http://127.0.0.1:{moto.port}"
    return S3Server(endpoint, ACCESS_KEY, SECRET_KEY, "us-east-1", directory, moto.stop, moto.kill, moto.start)


async def put(grant: PresignedPart, body: bytes) -> httpx.Response:
    """PUT the bytes as an agent does: the granted headers and a content type."""
    headers = {**grant.headers, "content-type": "application/octet-stream"}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        return await client.put(grant.url, content=body, headers=headers)


@pytest.fixture(scope="session")
def nanio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One nanio for the whole run; a test that stops it starts its own."""
    with start_nanio(tmp_path_factory.mktemp("nanio")) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One moto for the whole run."""
    with start_moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


def _server_of(store: FolderObjectStore) -> S3Server:
    keys = store.credentials
    return S3Server(
        store.endpoint,
        keys.access_key,
        keys.secret_key,
        store.region,
        store.directory,
        store.stop,
        store.kill,
        store.start,
    )


class _Moto:
    """The child process behind a moto server."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._log = directory / "moto.log"
        self._child: ChildProcess | None = None

    def start(self) -> None:
        command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))
        self._child = ChildProcess(command, self._log)
        deadline = time.monotonic() + READY_TIMEOUT
        while not self._listens(self._child):
            if not self._child.alive or time.monotonic() > deadline:
                self._child.kill()
                message = f"moto did not listen on port {self.port}:\n{self._child.output()}"
                raise RuntimeError(message)
            time.sleep(0.02)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def _listens(self, child: ChildProcess) -> bool:
        if "Running on" not in child.output():
            return False
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            return child.alive
        return False
