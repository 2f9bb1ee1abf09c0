"""A file that was sent, as the tombstone of its upload has it, and the work on it until nothing is left to be done."""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from device_agent.after.files import AfterFiles, hidden_name
from device_agent.after.machine import FileEvent, GraceOver, Phase, first, follow
from device_agent.after.policy import AfterPolicy
from device_agent.files.own_files import NO_FILES, OwnFiles
from device_agent.files.roots import Roots
from device_agent.transfer.closing import content_of
from device_agent.transfer.records import Afterwards
from schemas.parts import MIN_CHUNK_SIZE, PartPlan
from schemas.values import Fingerprint

UPLOAD = "u1"
CONTENT = b"measured" * 1000


def fingerprint_of(path: Path) -> Fingerprint:
    found = path.stat()
    return Fingerprint(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino)


def due_for(path: Path, asked: str = "delete") -> Afterwards:
    """What a close leaves to be done with this file, which was sent as it is now."""
    data = path.read_bytes()
    plan = PartPlan(len(data), MIN_CHUNK_SIZE)
    digests = {part.number: _md5(data[part.offset : part.offset + part.size]) for part in plan}
    return Afterwards(asked, str(path), "m1", 1, 3, source=fingerprint_of(path), content=content_of(digests))


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


@dataclass
class Sent:
    """The work on one file. `before` is called before the work of each phase, `crash_after` ends it there."""

    root: Path
    asked: str = "delete"
    name: str = "a.bin"
    before: dict[Phase, Callable[[], object]] = field(default_factory=dict)
    own: OwnFiles = NO_FILES
    policy: AfterPolicy = field(init=False)
    after: Afterwards = field(init=False)
    phase: Phase = field(init=False)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.path = self.root / self.name
        self.path.write_bytes(CONTENT)
        self.after = due_for(self.path, self.asked)
        self.phase = first(self.after)
        self.policy = AfterPolicy(["delete", "move"], (), [str(self.root)])

    @property
    def hidden(self) -> Path:
        return self.root / hidden_name(self.name, UPLOAD)

    def step(self) -> None:
        """One phase."""
        if change := self.before.pop(self.phase, None):
            change()
        event = GraceOver() if self.phase is Phase.WAIT else self.work()
        assert event is not None
        self.after, self.phase = follow(self.after, self.phase, event)

    def work(self) -> FileEvent | None:
        """The work of this phase, as a thread of the agent does it."""
        return AfterFiles(Roots([str(self.root)], own=self.own), forbids=self.policy.forbids).work(
            UPLOAD, self.after, self.phase
        )

    def restart(self) -> None:
        """The agent ended and started again: only the record is left."""
        self.phase = first(self.after)

    def run(self) -> Afterwards:
        """All phases up to the receipt."""
        while self.phase is not Phase.REPORT:
            self.step()
        return self.after

    def changed(self, **changes: object) -> None:
        self.after = replace(self.after, **changes)
