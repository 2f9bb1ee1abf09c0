"""An object store over a folder of this machine, for `demo`, `up` and tests: nanio as a child process.

Rule: signatures are always enforced, credentials are never on a command line, and the process ends with its parent.

    with start_folder_store(Path("state/store")) as store:
        print(store.endpoint)

Measured on nanio 0.1.7, and the reasons for its options:
- One worker. More would be child processes of nanio that outlive it when it is killed. While the worker assembles a
  completed upload (about 4 s a GiB on two cores) or waits for the disk, other requests wait; an agent
  sends a request again after its timeout.
- It streams: 1.5 GiB in parts of 64 MiB took 39 MiB of memory.
- Parts, objects and their metadata are fsynced before the answer; the folders that name them are not, so a power cut
  may lose the last few seconds.
- It takes no bucket sub-resource: `PUT ?lifecycle` is answered as CreateBucket, and a DELETE of one would delete an
  empty bucket.
"""

import importlib.util
import json
import os
import re
import secrets
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from broker.child_process import ChildProcess, python_program
from broker.errors import NotListening
from broker.server import free_port
from control_plane.services.errors import ObjectStoreDown, ObjectStoreRefused

LOOPBACK: Final = "127.0.0.1"
REGION: Final = "us-east-1"
READY_TIMEOUT: Final = 60.0
"""Seconds until the object store has to listen; a cold start on a busy machine took more than 15."""

_PORT_TRIES: Final = 5
_RUNNING: Final = re.compile("Uvicorn running on")
_HALF_WRITTEN: Final = re.compile(r"\.tmp\.[0-9a-f]{32}|assembled\.[0-9a-f]{32}\.tmp")


@dataclass(frozen=True, slots=True)
class FolderCredentials:
    """The only user of a folder object store."""

    access_key: str
    secret_key: str = field(repr=False)

    @classmethod
    def random(cls) -> Self:
        """Unguessable credentials."""
        return cls(f"BH{secrets.token_hex(9).upper()}", secrets.token_urlsafe(30))


class FolderObjectStore:
    """One object store; `directory` holds its objects, its log and its credentials."""

    def __init__(self, directory: Path, port: int, credentials: FolderCredentials, *, address: str = LOOPBACK) -> None:
        self.directory = directory
        self.port = port
        self.address = address
        self.credentials = credentials
        self.region = REGION
        self._child: ChildProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """The value for the setting `AWS_ENDPOINT`."""
        return f"http://{self.address}:{self.port}"

    @property
    def objects(self) -> Path:
        """The folder that holds each bucket as a folder and each object as a plain file."""
        return self.directory / "objects"

    @property
    def log_path(self) -> Path:
        """The output of the process; requests are not logged, since a presigned URL is a secret."""
        return self.directory / "store.log"

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int | None:
        """Process id of the child; None when there is none."""
        return self._child.pid if self._child is not None and self._child.alive else None

    def start(self) -> None:
        """Start it and wait until it listens; does nothing when it runs. `ObjectStoreDown` if it does not start."""
        if self.alive:
            return
        self.objects.mkdir(parents=True, exist_ok=True)
        _sweep(self.objects)
        write_credentials(self._options, self.credentials)
        self._child = ChildProcess(self._command(), self.log_path)
        try:
            self._child.wait_until_listening(_RUNNING, [(self.address, self.port)], READY_TIMEOUT)
        except NotListening as error:
            message = f"the folder store at {self.endpoint} {error}"
            raise ObjectStoreDown(message) from error

    def stop(self) -> None:
        """SIGTERM, SIGKILL if that takes too long."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """SIGKILL: a power cut for the process, though not for its disk."""
        if self._child is not None:
            self._child.kill()

    @property
    def port_taken(self) -> bool:
        """Whether the last start failed because another process listens on the port."""
        return self._child is not None and self._child.port_taken

    @property
    def _options(self) -> Path:
        return self.directory / "nanio.toml"

    def _command(self) -> tuple[str, ...]:
        options = {"--host": self.address, "--port": self.port, "--region": REGION, "--options": self._options}
        arguments = [str(one) for pair in {**options, "--data-dir": self.objects}.items() for one in pair]
        return python_program("nanio", "serve", *arguments, "--workers", "1", "--no-access-log")


def start_folder_store(
    directory: Path,
    *,
    port: int | None = None,
    credentials: FolderCredentials | None = None,
    address: str = LOOPBACK,
) -> FolderObjectStore:
    """A running object store over `directory`, on loopback unless `address` is another; without `port` on a free one.

    Without `credentials` those of the last start are used, else random ones. `ObjectStoreRefused` when nanio is not
    installed, `ObjectStoreDown` with the last lines of the log when it does not start.
    """
    if importlib.util.find_spec("nanio") is None:
        text = "the folder store needs nanio, which is not installed: run `pip install 'backhaul[demo]'`"
        raise ObjectStoreRefused(text, code="NotInstalled")
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    chosen = credentials or read_credentials(directory / "nanio.toml") or FolderCredentials.random()
    tries = 1 if port is not None else _PORT_TRIES
    while True:
        store, tries = FolderObjectStore(directory, port or free_port(), chosen, address=address), tries - 1
        try:
            store.start()
        except ObjectStoreDown:
            if tries == 0 or not store.port_taken:
                raise
        else:
            return store


def read_credentials(path: Path) -> FolderCredentials | None:
    """The credentials of the last start; None when there was none."""
    if not path.exists():
        return None
    user = tomllib.loads(path.read_text())["users"][0]
    return FolderCredentials(user["access_key"], user["secret_key"])


def write_credentials(path: Path, credentials: FolderCredentials) -> None:
    """Write nanio's options file, readable by its owner only."""
    # A JSON string is a TOML basic string.
    lines = ("[[users]]", f"access_key = {json.dumps(credentials.access_key)}")
    text = "\n".join((*lines, f"secret_key = {json.dumps(credentials.secret_key)}", ""))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _sweep(objects: Path) -> None:
    """Remove files that a killed nanio left incomplete.

    It writes an object's metadata to `<key>.json.tmp`, which must not exist: one left behind makes every later write
    of that key fail.
    """
    for path in objects.glob("**/*.tmp*"):
        metadata = ".nanio-meta" in path.parts and path.name.endswith(".json.tmp")
        if metadata or _HALF_WRITTEN.fullmatch(path.name):
            path.unlink(missing_ok=True)
