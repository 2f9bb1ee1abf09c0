"""A device's user files: their content, every content they had before, and changes while the agent reads them.

Rule: an open file stays the same when another file takes its name; every change moves `ctime`, as on a real system. Of
the files in `COARSE` it moves only with a clock that ticks every ten minutes, so some changes do not show.
"""

from dataclasses import dataclass, field
from typing import Final

from schemas.parts import MIB
from schemas.values import Fingerprint
from tests.simulation.contents import Content, clip, join, size_of
from tests.simulation.world import World

WAYS: Final = ("appended", "rewritten", "backdated", "truncated", "replaced", "deleted")
LOG_WAYS: Final = ("appended",) * 5 + WAYS
"""Changes of a log: mostly appends; now and then it is rotated, edited or deleted."""

COARSE: Final = frozenset({"/data/b c.bin", "/data/grows.log"})
EDGE: Final = 4096
"""Bytes at either end that an update writes; a file that is updated has at least twice as many."""

TICK: Final = 600
"""Seconds, as many as make a hidden change likely within one upload."""


@dataclass(eq=False)
class Inode:
    """One file, under any name."""

    number: int
    content: Content
    mtime: int
    ctime: int

    @property
    def size(self) -> int:
        """In bytes."""
        return size_of(self.content)


@dataclass(eq=False)
class OpenFile:
    """Takes the place of `device_agent.files.source.Source`."""

    files: "Files"
    path: str
    inode: Inode
    fingerprint: Fingerprint
    closed: bool = False

    def close(self) -> None:
        """Nothing more is read."""
        self.closed = True


@dataclass
class Files:
    """The files of one device. `versions` holds, per path, every content that the path ever led to."""

    world: World
    inodes: dict[str, Inode] = field(default_factory=dict)
    versions: dict[str, list[Content]] = field(default_factory=dict)
    mount: int = 1
    _stamps: int = 0

    def write(self, path: str, size: int) -> None:
        """A new file under this name, in place of any other."""
        stamp = self._stamp()
        content: Content = ((0, size, stamp),) if size else ()
        self.inodes[path] = Inode(stamp, content, self._time(path, stamp), self._time(path, stamp))
        self.versions.setdefault(path, []).append(content)

    def size(self, path: str) -> int:
        """Bytes in a file; 0 without one."""
        return self.inodes[path].size if path in self.inodes else 0

    def open(self, path: str) -> OpenFile | None:
        """The file under this name; None when there is none."""
        inode = self.inodes.get(path)
        return None if inode is None else OpenFile(self, path, inode, self.fingerprint(inode))

    def fingerprint(self, inode: Inode) -> Fingerprint:
        """The fingerprint of a file, as the file system reports it."""
        return Fingerprint(inode.size, inode.mtime, inode.ctime, self.mount, inode.number)

    def change(self, path: str, *, log: bool) -> str:
        """Change a file in a drawn way; returns that way."""
        inode = self.inodes.get(path)
        if inode is None:
            self.write(path, self.world.chance.randint(1, 30 * MIB))
            return "created again"
        way = self.world.chance.choice(LOG_WAYS if log else WAYS)
        if way == "deleted":
            del self.inodes[path]
        elif way == "replaced":
            self.write(path, inode.size)
        else:
            self._edit(path, inode, way)
        return way

    def _edit(self, path: str, inode: Inode, way: str) -> None:
        stamp, size = self._stamp(), inode.size
        at = self.world.chance.randint(0, size)
        if way == "appended":
            inode.content = join([inode.content, ((size, size + self.world.chance.randint(1, 8 * MIB), stamp),)])
        elif way == "truncated":
            inode.content = clip(inode.content, 0, at)
        elif way == "updated":
            # As a database or an archive does, whose index is at the start and whose new rows are at the end.
            edge = min(size, EDGE)
            first, last = ((0, edge, stamp),), ((size - edge, size, stamp),)
            inode.content = join([first, clip(inode.content, edge, size - 2 * edge), last])
        elif self.world.chance.random() < 0.6:
            inode.content = ((0, size, stamp),) if size else ()
        else:
            end = min(size, at + self.world.chance.randint(1, 6 * MIB))
            new: Content = ((at, end, stamp),) if end > at else ()
            inode.content = join([clip(inode.content, 0, at), new, clip(inode.content, end, size)])
        inode.ctime = self._time(path, stamp)
        inode.mtime = inode.mtime if way == "backdated" else inode.ctime
        self.versions[path].append(inode.content)

    def is_racy(self, path: str, found: Fingerprint) -> bool:
        """Whether a later change may leave this fingerprint as it is."""
        return found.ctime_ns >= self._time(path, self._stamps + 1)

    def _time(self, path: str, stamp: int) -> int:
        return int(self.world.now() // TICK) if path in COARSE else stamp

    def _stamp(self) -> int:
        self._stamps += 1
        return self._stamps
