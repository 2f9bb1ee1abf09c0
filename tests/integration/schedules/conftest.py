"""The fixtures of the tests of schedules."""

from tests.support.databases import migrated, sql_database
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]
