"""A real PostgreSQL server for the test run: a private cluster on a Unix socket, removed when the run ends.

Rule: nothing listens on the network, and the machine's PostgreSQL server is not touched. PostgreSQL refuses to run as
root; a test run of root starts it under the account of Debian's package.
"""

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest

_START_TIMEOUT: Final = 60.0
_SETTINGS: Final = (
    "listen_addresses=",
    "fsync=off",
    "full_page_writes=off",
    "max_connections=50",
    "shared_buffers=32MB",
)
"""The tests kill the server, not the machine: what the server has written survives without fsync."""


def programs() -> Path | None:
    """The directory of the newest server's programs; Debian keeps them off PATH."""
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return installed[-1].parent if installed else None


def _as_user() -> tuple[str, ...]:
    """The prefix of a command that makes the server unprivileged and ends it with this process."""
    if os.geteuid() != 0:
        return ("setpriv", "--pdeathsig=INT")
    return ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=INT")


class Postgres:
    """One cluster below `directory`, which its owner removes."""

    def __init__(self, directory: Path, binaries: Path) -> None:
        self._directory = directory
        self._binaries = binaries
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(directory, account.pw_uid, account.pw_gid)
        data = str(directory / "data")
        options = ("--auth=trust", "--username=backhaul", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        command = (*_as_user(), str(binaries / "initdb"), "-D", data, *options)
        subprocess.run(command, check=True, cwd=directory, capture_output=True, timeout=60)

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        program = (str(self._binaries / "postgres"), "-D", str(self._directory / "data"))
        command = (*_as_user(), *program, "-k", str(self._directory), *settings)
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._directory, stdout=log, stderr=log)
        give_up_at = time.monotonic() + _START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                pytest.fail((self._directory / "log").read_text()[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, every backend with it: what `pg_ctl stop -m immediate` does."""
        if self._process is not None:
            self._process.send_signal(3)
            self._process.wait(timeout=60)

    def create_database(self, template: str = "template0") -> str:
        """A new database, by name."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
        return name

    def url(self, database: str) -> str:
        """The URL of this database."""
        return f"postgresql://backhaul@/{database}?host={self._directory}"

    def _conninfo(self, database: str) -> str:
        return f"host={self._directory} user=backhaul dbname={database}"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._conninfo("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


def running_cluster() -> Iterator[Postgres]:
    """A started cluster; the test is skipped where PostgreSQL is not installed."""
    binaries = programs()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed")
    # Not below pytest's directories: the server's account cannot read them, and a socket's path would be too long.
    directory = Path(tempfile.mkdtemp(prefix="backhaul-pg-"))
    cluster = Postgres(directory, binaries)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One cluster for the whole run; each test creates its own database."""
    yield from running_cluster()
