"""Records that the database in memory does not keep.

Rule: it serves single uploads. Whatever belongs to a whole fleet needs SQL.
"""

from typing import Final, Never

from control_plane.services.errors import UnsupportedRecords


class Unsupported:
    """An attribute that raises `UnsupportedRecords` whenever it is read."""

    def __init__(self, kind: str) -> None:
        self._kind: Final = kind

    def __get__(self, _instance: object, _owner: type) -> Never:
        raise UnsupportedRecords(self._kind)
