"""Four eyes: which jobs need the approval of a second person, also where the creator asked for none.

Rule: pure. A policy only tightens what a job requests. Whether a pattern of files may name a secret path is judged by
what both begin with, so a pattern that could name one is never missed.
"""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from control_plane.domain.jobs.spec import Approval, JobSpec
from control_plane.domain.selectors import Selector

_WILD: Final = re.compile(r"[*?\[{]")


class FourEyes(Struct, frozen=True):
    """Above `bytes_over` (bytes) of files or `clients_over` clients, for files that a glob of `paths` names.

    And for clients that `selector` selects by their labels.
    """

    bytes_over: int | None = None
    clients_over: int | None = None
    paths: tuple[str, ...] = ()
    selector: Selector | None = None

    @property
    def is_on(self) -> bool:
        """Whether a second person is ever needed."""
        return self != OFF

    def names(self, glob: str) -> bool:
        """Whether a path or a glob may name a file that a second person must approve."""
        return any(may_meet(glob, one) for one in self.paths)

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a second person must approve what a client with these labels sends."""
        return self.selector is not None and self.selector.matches(labels)

    def tightened(self, spec: JobSpec, *, selected: bool = False) -> JobSpec:
        """The request with the approval that it needs at least; `selected`: one of its clients is of the selector."""
        if not self.is_on or spec.approval.mode == "always":
            return spec
        # A continuous job takes clients that are not registered yet.
        if selected or (self.selector is not None and spec.targets.mode == "continuous"):
            return replace(spec, approval=Approval("always"))
        # Only the device knows which paths a file type names, also where it stands beside paths.
        if self.paths and (spec.files.type is not None or any(map(self.names, spec.files.paths))):
            return replace(spec, approval=Approval("always"))
        own = spec.approval if spec.approval.mode == "limits" else Approval()
        size, clients = _lower(own.bytes_over, self.bytes_over), _lower(own.clients_over, self.clients_over)
        if size is None and clients is None:
            return spec
        return replace(spec, approval=Approval("limits", size, clients))


OFF: Final = FourEyes()


def may_meet(one: str, other: str) -> bool:
    """Whether two globs may name the same path; True too often, and never False for two that do.

    >>> may_meet("/data/*.csv", "/data/secret/**"), may_meet("/log/*.txt", "/data/secret/**")
    (True, False)
    """
    # Case is ignored: on a FAT disk `/DATA/a` opens `/data/a`.
    first, second = (_WILD.split(glob, maxsplit=1)[0].casefold() for glob in (one, other))
    return first.startswith(second) or second.startswith(first)


def _lower(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)
