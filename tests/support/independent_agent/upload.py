"""One upload, in memory.

Rule: arithmetic only.
"""

import os

from tests.support.independent_agent.types import MIB, Json


class Upload:
    """One upload, in memory."""

    def __init__(self, message_id: str, payload: Json, config: Json, path: str) -> None:
        self.message_id = message_id
        self.upload_id: str = config.get("upload_id") or payload.get("upload_id") or message_id
        self.attempt: int = config.get("attempt") or payload.get("attempt") or 1
        self.owner: str = config.get("owner") or "control-plane"
        self.digest: str = config.get("digest") or "md5"
        self.chunk: int = config.get("chunk_size") or 5 * MIB
        self.rate: int | None = payload.get("options", {}).get("max_bytes_per_second")
        self.own_rate = self.rate
        self.path = path
        self.sequence: int = payload.get("acknowledges", 0)
        self.stat: os.stat_result | None = None
        self.latest: Json | None = None
        self.unanswered = False
        self.repeat_at = 0.0
        self.repeats = 0
        self.ended: str | None = None
        self.etags: dict[int, tuple[int, str]] = {}
        self.stored: set[int] = set()
        self.digests: dict[int, str | None] = {}
        self.grants: dict[int, tuple[Json, float, float]] = {}
        self.sending: set[int] = set()
        self.retry_at: dict[int, float] = {}
        self.counts: dict[tuple[str, int], int] = {}
        self.waits_until: float | None = None
        self.reason = ""

    def part_size(self) -> int:
        """Bytes in each part but the last."""
        smallest = -(-self.size() // 10_000)
        return max(self.chunk, -(-smallest // MIB) * MIB)

    def size(self) -> int:
        """Bytes of the file."""
        return self.stat.st_size if self.stat is not None else 0

    def total(self) -> int:
        """Number of parts."""
        return max(1, -(-self.size() // self.part_size()))

    def extent(self, number: int) -> tuple[int, int]:
        """Where a part begins, and its bytes."""
        offset = (number - 1) * self.part_size()
        return offset, min(self.part_size(), self.size() - offset)
