"""What a job requests: targets, files, and how fast, when and how long.

Rule: plain data, checked by its maker. Durations are seconds, sizes bytes, percentages 0 to 100.
"""

from typing import Any, Final, Literal

from msgspec import Struct, field

from control_plane.domain.jobs.keys import uses_tick
from schemas.messages import KEEP
from schemas.values import UploadOptions

DAY: Final = 86_400.0
MAX_JOB_DEADLINE: Final = 30 * DAY
"""Seconds from the creation to the deadline of a job, at most."""

DEFAULT_KEY: Final = "{job}/{client_id}/{path}"
DEFAULT_MAX_FILES: Final = 1_000
MOST_FILES: Final = 10_000
"""Files of one execution, at most: a device keeps no more of one selection."""


class Targets(Struct, frozen=True):
    """The union of `clients` (ids, `*` patterns, `group:NAME`) and of what `selector` matches.

    `snapshot`: the clients at the creation. `continuous`: clients that match later join until the deadline. `reach` is
    the claim `clients` of the token that made the request: of the union, only what this selector matches. None: all.
    """

    clients: tuple[str, ...] = ()
    selector: str | None = None
    mode: Literal["snapshot", "continuous"] = "snapshot"
    reach: str | None = None


class FileQuery(Struct, frozen=True):
    """Which files of a client: `paths` are absolute globs that may hold `{tick}`, or `type` names a file type.

    `newer_than` and `older_than` are ages (s) at the tick, or at the job's creation. `min_files` None is 0; in a
    schedule that uses `{tick}` it is 1. `max_bytes` bounds the sum of an execution.
    """

    paths: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    type: str | None = None
    newer_than: float | None = None
    older_than: float | None = None
    min_size: int | None = None
    max_size: int | None = None
    pick: Literal["newest", "oldest", "largest", "smallest", "path"] = "newest"
    min_files: int | None = None
    max_files: int = DEFAULT_MAX_FILES
    max_bytes: int | None = None
    skip: Literal["none", "unchanged"] = "none"


class Approval(Struct, frozen=True):
    """Whether a person approves first. `limits`: above `bytes_over` (bytes) of files, or `clients_over` clients."""

    mode: Literal["never", "always", "limits"] = "never"
    bytes_over: int | None = None
    clients_over: int | None = None


class Rate(Struct, frozen=True):
    """`count` events in `seconds`, evenly spread."""

    count: int
    seconds: float


class Stage(Struct, frozen=True):
    """The first `percent` of the clients (cumulative).

    The next stage begins once at least `min` executions of this one ended, `advance_at` % of those succeeded, and none
    runs or `advance_after` seconds passed. `then` is what happens at that moment.
    """

    percent: float
    min: int = 1
    advance_at: float = 100.0
    advance_after: float = 3600.0
    then: Literal["continue", "pause"] = "continue"


class Rollout(Struct, frozen=True):
    """How fast executions begin; None means unbounded."""

    rate: Rate | None = None
    max_running: int | None = None
    stages: tuple[Stage, ...] = ()


AbortOn = Literal["failed", "timed_out", "partial", "rejected", "skipped", "all"]
"""An end of an execution. `all` is the first three: a refusal and an empty selection are no failures unless named."""


class AbortRule(Struct, frozen=True):
    """Aborts the job when `percent` of its ended executions ended so, of at least `min_ended`."""

    on: AbortOn
    percent: float
    min_ended: int = 1


class Retry(Struct, frozen=True):
    """How often an execution is repeated by itself before it ends so."""

    failed: int = 0
    timed_out: int = 0


class Timeouts(Struct, frozen=True):
    """Seconds: `listing` while the client is connected and asked, `execution` from the first dispatch while connected.

    None is the job's deadline.
    """

    listing: float | None = 3600.0
    execution: float | None = None


class Window(Struct, frozen=True):
    """When bytes may leave a device: from each tick of `cron`, for `seconds`, in the zone of the device or the job.

    `pause`: grants stop at its end. `finish`: what runs may finish.
    """

    cron: str
    seconds: float
    zone: Literal["device", "job"] = "job"
    on_end: Literal["pause", "finish"] = "pause"


class JobSpec(Struct, frozen=True, kw_only=True):
    """A whole request. `deadline` is seconds from the creation; `zone` an IANA name.

    `running` is what happens to open uploads after an abort.
    """

    targets: Targets
    files: FileQuery
    key: str = DEFAULT_KEY
    reason: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    options: UploadOptions = UploadOptions()
    approval: Approval = Approval()
    rollout: Rollout = Rollout()
    abort: tuple[AbortRule, ...] = ()
    retry: Retry = Retry()
    timeouts: Timeouts = Timeouts()
    deadline: float = 7 * DAY
    zone: str = "UTC"
    windows: tuple[Window, ...] = ()
    priority: int = 0
    running: Literal["finish", "cancel"] = "finish"
    after: str = KEEP
    """What each device does with a file once its object is proven (`schemas.messages.After`)."""

    @property
    def uses_tick(self) -> bool:
        """Whether a tick decides which files are meant, or what they are called."""
        return any(uses_tick(text) for text in (self.key, *self.files.paths))
