"""The port `DatabaseExaminer`: what a database is, before it is opened.

Rule: `facts` never creates a file and never migrates.
"""

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, text

from control_plane.adapters.database.database import PATIENCE, SqlDatabase
from control_plane.adapters.database.engines import SQLITE, parse_url, place, reading_engine
from control_plane.adapters.database.migration import configuration
from control_plane.adapters.database.transactions import run
from control_plane.services.ports.database import Database
from control_plane.services.ports.diagnosis import DatabaseFacts


class SqlExaminer:
    """`services.ports.diagnosis.DatabaseExaminer` of one URL; `BadInput` when it cannot be read."""

    def __init__(self, url: str) -> None:
        self._text = url
        self._url = parse_url(url)

    async def facts(self) -> DatabaseFacts:
        return await asyncio.to_thread(_facts, self._url)

    async def opened(self) -> Database:
        return await asyncio.to_thread(SqlDatabase.open, self._text)


def _facts(url: URL) -> DatabaseFacts:
    is_file = url.get_backend_name() == SQLITE
    path = Path(place(url)) if is_file else None
    if path is not None and not path.exists():
        return DatabaseFacts(
            place=str(path), product="SQLite", revision=None, newest=_newest(), disk_free=_free(path.parent)
        )
    engine = reading_engine(url, PATIENCE)
    try:
        return run(engine, lambda connection: _read(connection, url, path), PATIENCE)
    finally:
        engine.dispose()


def _read(connection: Connection, url: URL, path: Path | None) -> DatabaseFacts:
    scripts = ScriptDirectory.from_config(configuration(connection))
    heads = MigrationContext.configure(connection).get_current_heads()
    known = {script.revision for script in scripts.walk_revisions()}
    skew = size = None
    if path is None:
        before = time.time()
        server = float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
        skew = server - (before + time.time()) / 2
        size = int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
    else:
        with suppress(OSError):
            size = path.stat().st_size
    version = ".".join(str(part) for part in connection.dialect.server_version_info or ())
    return DatabaseFacts(
        place=place(url),
        product=f"{'SQLite' if path is not None else 'PostgreSQL'} {version}".strip(),
        revision=", ".join(sorted(heads)) or None,
        newest=scripts.get_current_head() or "",
        known=set(heads) <= known,
        disk_free=None if path is None else _free(path.parent),
        size=size,
        clock_skew=skew,
    )


def _newest() -> str:
    return ScriptDirectory.from_config(configuration()).get_current_head() or ""


def _free(folder: Path) -> int | None:
    """Bytes that a program without rights may still use; None for a folder that does not exist."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize
