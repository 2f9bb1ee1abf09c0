"""Which files of a device a job means, computed from the whole list at once.

Rule: no page, no selection and no row: the result of the paged one must be equal.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from control_plane.domain.jobs.spec import FileQuery
from tests.simulation.jobs.devices import ModelFile


def meant(query: FileQuery, files: Iterable[ModelFile], at: float) -> list[str]:
    """The paths that are to be sent, in their order; `at` is the instant that ages refer to (s since the epoch)."""
    found = sorted((one for one in files if _matches(query, one, at)), key=lambda one: _order(query, one))
    chosen: list[str] = []
    size = 0
    for one in found[: query.max_files]:
        size += one.size
        if query.max_bytes is not None and size > query.max_bytes:
            break
        chosen.append(one.path)
    return chosen


def _matches(query: FileQuery, one: ModelFile, at: float) -> bool:
    age = at - one.mtime_ns / 1e9
    return (
        any(fnmatchcase(one.path, pattern) for pattern in query.paths)
        and not any(fnmatchcase(one.path, pattern) for pattern in query.exclude)
        and (query.newer_than is None or age <= query.newer_than)
        and (query.older_than is None or age >= query.older_than)
        and (query.min_size is None or one.size >= query.min_size)
        and (query.max_size is None or one.size <= query.max_size)
    )


def _order(query: FileQuery, one: ModelFile) -> tuple[Any, ...]:
    orders = {
        "newest": -one.mtime_ns,
        "oldest": one.mtime_ns,
        "largest": -one.size,
        "smallest": one.size,
        "path": 0,
    }
    return orders[query.pick], one.path
