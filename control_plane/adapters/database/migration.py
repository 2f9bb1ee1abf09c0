"""Upgrades a database's schema to the revision of this program.

Rule: all or nothing, and one process at a time: the others wait, then find nothing to do.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection

from control_plane.adapters import migrations
from control_plane.adapters.database.engines import POSTGRES, migrating_engine, parse_url, place
from control_plane.adapters.database.transactions import run
from control_plane.services.errors import BadInput

PATIENCE: Final = 60.0
"""Seconds to wait for another process that migrates."""

_ADVISORY_LOCK: Final = 0x4241434B
"""Any number that never changes and that nothing else in this database locks."""


def migrate(url: str, *, patience: float = PATIENCE) -> None:
    """Create or upgrade the schema.

    `BadInput` for a database that a later version of this program, or another program, has upgraded;
    `DatabaseUnavailable` when it is locked, full or unreachable.
    """
    upgrade(parse_url(url), patience)


def upgrade(url: URL, patience: float, revision: str = "head") -> None:
    """As `migrate`, to any revision."""
    engine = migrating_engine(url, patience)
    try:
        run(engine, lambda connection: _upgrade(connection, revision), patience)
    finally:
        engine.dispose()


def _upgrade(connection: Connection, revision: str) -> None:
    if connection.dialect.name == POSTGRES:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
    config = configuration(connection)
    _refuse_unknown(connection, ScriptDirectory.from_config(config))
    command.upgrade(config, revision)


def configuration(connection: Connection | None = None) -> Config:
    """What Alembic's commands need to run on this connection, inside its transaction; without one, only the scripts."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    return config


def _refuse_unknown(connection: Connection, scripts: ScriptDirectory) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    found = set(MigrationContext.configure(connection).get_current_heads())
    if unknown := found - known:
        message = (
            f"the database {place(connection.engine.url)} is at revision {', '.join(sorted(unknown))},"
            " which this program does not know:"
            " it was upgraded by a later version; run that one, or restore the backup from before the upgrade"
        )
        raise BadInput(message)
