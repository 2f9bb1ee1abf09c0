"""The object store of the pair: it keeps parts and objects, and counts completed uploads.

Rule: a PUT may store and lose its answer, or fail without storing; a healed store does neither.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random

from device_agent.errors import PutFailure

TOKENS = 2


@dataclass
class PairStore:
    """One bucket. `objects` maps keys to the tokens of their objects; `created` counts completed ones only."""

    chance: Random
    faulty: bool = True
    uploads: dict[str, tuple[str, dict[int, str]]] = field(default_factory=dict)
    objects: dict[str, str] = field(default_factory=dict)
    created: int = 0
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    def create(self, token: str) -> str:
        s3_upload_id = f"m{next(self._ids)}"
        self.uploads[s3_upload_id] = (token, {})
        return s3_upload_id

    def lose_uploads(self) -> None:
        """Another program's clean-up aborts all open uploads."""
        self.uploads.clear()

    def parts(self, s3_upload_id: str) -> dict[int, str] | None:
        held = self.uploads.get(s3_upload_id)
        return None if held is None else held[1]

    def complete(self, s3_key: str, s3_upload_id: str) -> None:
        """Assemble; nothing happens the second time."""
        held = self.uploads.pop(s3_upload_id, None)
        if held is not None:
            self.objects[s3_key] = held[0]
            self.created += 1

    def put(self, place: str, number: int) -> str | PutFailure:
        """Store one part (or the object, when `place` is a key and a token); its etag, or why there is none."""
        luck = self.chance.random() if self.faulty else 1.0
        if luck < 0.1:
            return PutFailure.TRY_AGAIN
        if luck < 0.12:
            return PutFailure.EXPIRED_OR_FORBIDDEN
        etag = self._store(place, number)
        return PutFailure.TRY_AGAIN if luck < 0.2 else etag

    def _store(self, place: str, number: int) -> str | PutFailure:
        etag = f'"e{next(self._ids)}"'
        fields = place.split()
        if len(fields) == TOKENS:
            if fields[0] in self.objects:
                return ""
            self.objects[fields[0]] = fields[1]
            return etag
        if place not in self.uploads:
            return PutFailure.GONE
        self.uploads[place][1][number] = etag
        return etag

    def delete(self, s3_key: str, tokens: set[str]) -> None:
        if self.objects.get(s3_key) in tokens:
            del self.objects[s3_key]
