"""A running strict double: in a thread of the test, or as a separate process.

Rule: a port is bound before its number is passed on.

    with start_strict(tmp_path) as strict:
        strict.faults.add(Fault(kind=Kind.RESET, operation=Operation.UPLOAD_PART, at_byte=1000))
        ... strict.s3.endpoint ...
"""

import asyncio
import http.client
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from broker.child_process import ChildProcess
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, S3Server
from tests.support.strict_s3.answers import Options
from tests.support.strict_s3.application import ADMIN, StrictS3
from tests.support.strict_s3.events import EventLog, StoreEvent
from tests.support.strict_s3.faults import Fault, FaultScript
from tests.support.strict_s3.quirks import Quirk
from tests.support.strict_s3.signatures import Keys
from tests.support.strict_s3.storage import Storage

LOOPBACK: Final = "127.0.0.1"
REGION: Final = "us-east-1"
KEYS: Final = Keys(ACCESS_KEY, SECRET_KEY, REGION)
READY_TIMEOUT: Final = 60.0
_LISTENS: Final = re.compile(r"listens on port (\d+)\n")


class StrictServer:
    """A double in a thread, with its `faults`, `events` and `storage`; `s3` has its address."""

    def __init__(
        self,
        directory: Path,
        options: Options | None = None,
        keys: Keys = KEYS,
        port: int = 0,
        quirks: Iterable[Quirk] = (),
    ) -> None:
        self.app = StrictS3(directory, keys, options, quirks)
        self._socket = socket.create_server((LOOPBACK, port))
        self._server = uvicorn.Server(_config(self.app))
        self._thread = threading.Thread(target=self._run, name="strict-s3", daemon=True)
        endpoint = f"http://{LOOPBACK}:{self._socket.getsockname()[1]}"
        self.s3 = S3Server(
            endpoint, keys.access_key, keys.secret_key, keys.region, directory, self.stop, self.stop, self.start
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def faults(self) -> FaultScript:
        """The planted faults."""
        return self.app.faults

    @property
    def quirks(self) -> set[Quirk]:
        """The quirks in force; may be changed while the double runs."""
        return self.app.quirks

    @property
    def events(self) -> EventLog:
        """The log."""
        return self.app.events

    @property
    def storage(self) -> Storage:
        """The stored objects."""
        return self.app.storage

    def start(self) -> None:
        """Start to serve; does nothing when it is running."""
        if not self._thread.is_alive():
            self._thread.start()
        while not self._server.started:
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop for good."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(READY_TIMEOUT)
        self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))


def start_strict(
    directory: Path, options: Options | None = None, *, keys: Keys = KEYS, quirks: Iterable[Quirk] = ()
) -> StrictServer:
    """A running double in a thread of this process."""
    server = StrictServer(directory, options, keys, quirks=quirks)
    server.start()
    return server


def start_strict_process(directory: Path) -> tuple[S3Server, "StrictControl"]:
    """A running double as a child process, which ends with this one; and the control of its faults and events."""
    directory.mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "tests.support.strict_s3", "--directory", str(directory))
    child = ChildProcess(command, directory / "strict.log")
    deadline = time.monotonic() + READY_TIMEOUT
    while (told := _LISTENS.search(child.output())) is None:
        if not child.alive or time.monotonic() > deadline:
            child.kill()
            message = f"the strict store did not start:\n{child.output()}"
            raise RuntimeError(message)
        time.sleep(0.02)
    port = int(told[1])
    endpoint = f"http://{LOOPBACK}:{port}"
    started = (child.stop, child.kill, lambda: None)
    return S3Server(endpoint, ACCESS_KEY, SECRET_KEY, REGION, directory, *started), StrictControl(port)


class StrictControl:
    """Faults and events of a double in another process."""

    def __init__(self, port: int) -> None:
        self._port = port

    def add(self, *faults: Fault) -> None:
        """Plant faults."""
        self._ask("POST", "faults", json.dumps([fault.to_json() for fault in faults]))

    def clear(self) -> None:
        """Remove all faults."""
        self._ask("DELETE", "faults")

    def behave(self, *quirks: Quirk) -> None:
        """Have these quirks and no others."""
        self._ask("PUT", "quirks", json.dumps([quirk.name for quirk in quirks]))

    def events(self) -> list[StoreEvent]:
        """The events so far."""
        return [StoreEvent.read(line) for line in self._ask("GET", "events").decode().splitlines()]

    def _ask(self, method: str, what: str, body: str | None = None) -> bytes:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=60)
        try:
            connection.request(method, ADMIN + what, body)
            return connection.getresponse().read()
        finally:
            connection.close()


def received(events: Iterable[StoreEvent], operation: str, key: str | None = None) -> int:
    """Bytes that arrived in bodies of one operation, stored or not."""
    return sum(one.received for one in events if one.operation == operation and key in {None, one.key})


def _config(app: StrictS3) -> uvicorn.Config:
    class Protocol(H11Protocol):
        """Gives the application access to the connection, which a fault may reset."""

        def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - as uvicorn has it
            super().connection_made(transport)
            app.transports[transport.get_extra_info("peername")] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            app.transports.pop(self.transport.get_extra_info("peername"), None)
            super().connection_lost(exc)

    return uvicorn.Config(
        app,
        http=Protocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        date_header=False,
        timeout_graceful_shutdown=1,
    )


def serve_forever(directory: Path) -> None:
    """Run as a process: print the port, and serve until a signal arrives."""
    app = StrictS3(directory, KEYS)
    with socket.create_server((LOOPBACK, 0)) as listener:
        server = uvicorn.Server(_config(app))
        sys.stdout.write(f"strict store listens on port {listener.getsockname()[1]}\n")
        sys.stdout.flush()
        asyncio.run(server.serve(sockets=[listener]))
