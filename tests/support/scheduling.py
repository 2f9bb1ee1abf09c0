"""Which tests pytest-xdist keeps on one worker under `--dist loadfile`.

Rule: those of one file, so that its broker or server is started once; and those of all files of containers, which build
the same images and would fill two processors with them.
"""

from typing import Final

from xdist.scheduler import LoadFileScheduling

_TOGETHER: Final = "containers"
"""In the name of each file whose tests are marked `containers`."""


class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # a library without types
    """By file, and the files of containers as one."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", 1)[0]
        return _TOGETHER if _TOGETHER in path.rpartition("/")[2] else path
