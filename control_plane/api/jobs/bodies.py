"""The body of a job, and how it becomes a specification.

Rule: strict and bounded. Every refusal is one sentence that begins with the member's name. Sizes are `50MiB` or bytes,
durations `24h` or seconds.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final, Literal, Self

import msgspec
from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    PlainValidator,
    Tag,
    WithJsonSchema,
    model_validator,
)

from control_plane.api.bodies import (
    After,
    Input,
    Metadata,
    Options,
    SetCount,
    SetName,
    Whole,
    matching,
    read_instant,
    shown_set,
)
from control_plane.api.jobs import examples
from control_plane.domain.errors import BadText
from control_plane.domain.jobs.durations import read_bytes, read_rate, read_seconds
from control_plane.domain.jobs.keys import read_key_template, read_path_template
from control_plane.domain.jobs.model import ExecutionState
from control_plane.domain.jobs.spec import (
    DAY,
    DEFAULT_KEY,
    DEFAULT_MAX_FILES,
    MAX_JOB_DEADLINE,
    MOST_FILES,
    AbortOn,
    AbortRule,
    Approval,
    FileQuery,
    JobSpec,
    Rate,
    Retry,
    Rollout,
    Stage,
    Targets,
    Timeouts,
    Window,
)
from control_plane.domain.schedules.ticks import read_cron, read_zone
from control_plane.domain.selectors import MAX_LENGTH, parse
from control_plane.services.clients.sets import ShownSet
from control_plane.services.jobs.service import Choice, Tuning
from schemas.errors import SchemaError
from schemas.messages import KEEP
from schemas.topics import require_client_id
from schemas.values import UploadOptions

MAX_TARGETS: Final = 100_000
MAX_PATHS: Final = 100
MAX_PATTERNS: Final = 48 * 1024
"""Bytes of all paths in JSON: `{tick}` becomes at most 2.5 times as long, and a message holds 128 KiB."""

MAX_REASON: Final = 500
_MAX_STAGES: Final = 20
_MAX_WINDOWS: Final = 20
_MAX_RULES: Final = 10
_MAX_AGE: Final = 100 * 366 * DAY
_MAX_COUNT: Final = 1_000_000
_MAX_PRIORITY: Final = 100
_WHOLE_SHARE: Final = 100.0
_GROUP: Final = "group:"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_PATTERN: Final = re.compile(r"[A-Za-z0-9._*-]{1,64}", re.ASCII)

JobId = Annotated[
    str,
    *matching(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", "must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or a digit"
    ),
]


def _bounded(least: float, most: float, shown: str) -> Callable[[object], float]:
    def read(value: object) -> float:
        seconds = read_seconds(value)
        if not least <= seconds <= most:
            message = f"must be {shown}"
            raise ValueError(message)
        return seconds

    return read


def _size(value: object) -> int:
    return read_bytes(value)


def _selector(text: str) -> str:
    """`SelectorError` passes: its problem document has the position."""
    parse(text)
    return text


_DURATION_SCHEMA: Final = {
    "description": "`24h`, `1h30m`, or seconds.",
    "anyOf": [{"type": "string"}, {"type": "number"}],
}
Seconds = Annotated[
    float,
    PlainValidator(_bounded(0.001, MAX_JOB_DEADLINE, "more than 0, and at most 30 days")),
    WithJsonSchema(_DURATION_SCHEMA),
]
Age = Annotated[
    float,
    PlainValidator(_bounded(0.001, _MAX_AGE, "more than 0, and at most 100 years")),
    WithJsonSchema(_DURATION_SCHEMA),
]
Bytes = Annotated[
    int,
    PlainValidator(_size),
    WithJsonSchema({"description": "`50MiB`, or bytes.", "anyOf": [{"type": "string"}, {"type": "integer"}]}),
]
PerMinute = Annotated[
    Rate,
    PlainValidator(read_rate),
    WithJsonSchema(
        {"description": "A number a minute, or `1/20m`, `50/h`.", "anyOf": [{"type": "string"}, {"type": "integer"}]}
    ),
]
JobSelector = Annotated[str, Field(min_length=1, max_length=MAX_LENGTH), AfterValidator(_selector)]
Percent = Annotated[float, Field(strict=True, gt=0, le=100)]
Count = Annotated[int, Field(strict=True, ge=1, le=_MAX_COUNT), Whole]
Tries = Annotated[int, Field(strict=True, ge=0, le=10), Whole]


def _target(text: str) -> str:
    """A client id, a pattern with `*`, or `group:NAME`."""
    if text.startswith(_GROUP):
        if _NAME.fullmatch(text.removeprefix(_GROUP)) is None:
            message = f"{text!r} names no group: write group:NAME"
            raise ValueError(message)
    elif "*" in text:
        if _PATTERN.fullmatch(text) is None:
            message = f"{text!r} is no pattern of client ids"
            raise ValueError(message)
    else:
        try:
            require_client_id(text)
        except SchemaError as error:
            raise ValueError(str(error)) from error
    return text


def _path(text: str) -> str:
    if not text.startswith("/"):
        message = f"{text!r} is not absolute: it must begin with /"
        raise ValueError(message)
    if "\0" in text or ".." in text.split("/"):
        message = f"{text!r} holds .. or a NUL"
        raise ValueError(message)
    read_path_template(text)
    return text


def _excluded(text: str) -> str:
    if "\0" in text or not text.strip("/"):
        message = f"{text!r} is no pattern of paths"
        raise ValueError(message)
    return text


def _instant_or_seconds(value: object) -> float | datetime:
    """An instant, or a duration from now. The instant is judged where there is a clock."""
    if (instant := read_instant(value)) is not None:
        return instant
    try:
        seconds = read_seconds(value)
    except BadText as error:
        message = "must be a duration such as 36h, seconds, or an RFC 3339 instant such as 2026-11-27T18:00:00Z"
        raise ValueError(message) from error
    if not 1 <= seconds <= MAX_JOB_DEADLINE:
        message = "must be at least 1 s and at most 30 days away"
        raise ValueError(message)
    return seconds


def _known_instant(value: object) -> datetime:
    if (instant := read_instant(value)) is not None:
        return instant
    message = "must be an RFC 3339 instant such as 2026-11-27T18:00:00Z"
    raise ValueError(message)


def seconds_until(deadline: float | datetime, now: float) -> float:
    """Seconds from `now` to the deadline; `BadText` for one in the past or more than 30 days away."""
    if not isinstance(deadline, datetime):
        return deadline
    seconds = deadline.timestamp() - now
    if seconds <= 0:
        message = "deadline: has passed already"
        raise BadText(message)
    if seconds > MAX_JOB_DEADLINE:
        message = "deadline: is more than 30 days away"
        raise BadText(message)
    return seconds


Zone = Annotated[str, AfterValidator(read_zone)]
JobDeadline = Annotated[
    float | datetime,
    PlainValidator(_instant_or_seconds),
    WithJsonSchema(
        {
            "description": "`36h`, seconds from the creation, or an RFC 3339 instant; at most 30 days away.",
            "anyOf": [{"type": "string"}, {"type": "number"}],
        }
    ),
]


class TargetsInput(Input):
    """The clients: ids, `*` patterns and `group:NAME`, a selector, or both (the union)."""

    # The first fault alone: to describe each of two million takes seconds and gigabytes.
    clients: Annotated[
        tuple[Annotated[str, AfterValidator(_target)], ...], Field(max_length=MAX_TARGETS), FailFast()
    ] = ()
    selector: JobSelector | None = None
    mode: Literal["snapshot", "continuous"] = "snapshot"

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.clients and self.selector is None:
            message = "names no client: give clients, selector, or both"
            raise ValueError(message)
        return self


class FilesInput(Input):
    """The files of each client: absolute globs, or a file type of the device's configuration."""

    paths: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_path)], ...],
        Field(max_length=MAX_PATHS, description="Absolute globs; `{tick:%Y%m%d}` is filled in."),
    ] = ()
    exclude: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_excluded)], ...],
        Field(max_length=MAX_PATHS),
    ] = ()
    type: Annotated[str, *matching(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", "must be the name of a file type")] | None = (
        None
    )
    newer_than: Age | None = None
    older_than: Age | None = None
    min_size: Bytes | None = None
    max_size: Bytes | None = None
    pick: Literal["newest", "oldest", "largest", "smallest", "path"] = "newest"
    min_files: Annotated[int, Field(strict=True, ge=0, le=MOST_FILES), Whole] | None = None
    max_files: Annotated[int, Field(strict=True, ge=1, le=MOST_FILES), Whole] = DEFAULT_MAX_FILES
    max_bytes: Bytes | None = None
    skip: Literal["none", "unchanged"] = "none"

    @model_validator(mode="after")
    def _agree(self) -> Self:
        def refuse(message: str) -> None:
            raise ValueError(message)

        if not self.paths and self.type is None:
            refuse("names no file: give paths, or type")
        if self.paths and self.type is not None:
            refuse("gives paths and type: a device takes one of them")
        if len(msgspec.json.encode((self.paths, self.exclude))) > MAX_PATTERNS:
            refuse("paths and exclude have more than 48 KiB together: one message to a device does not hold them")
        if self.newer_than is not None and self.older_than is not None and self.older_than >= self.newer_than:
            refuse("no file is older than older_than and newer than newer_than")
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            refuse("min_size is more than max_size")
        if self.min_files is not None and self.min_files > self.max_files:
            refuse("min_files is more than max_files")
        return self


class LimitsInput(Input):
    """Above these a person has to approve."""

    bytes_over: Bytes | None = None
    clients_over: Annotated[int, Field(strict=True, ge=0, le=_MAX_COUNT), Whole] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.bytes_over is None and self.clients_over is None:
            message = "needs bytes_over, clients_over, or both"
            raise ValueError(message)
        return self


class StageInput(Input):
    """A share of the clients (cumulative), and when the next one begins."""

    percent: Percent
    min: Count = 1
    advance_at: Percent = 100.0
    advance_after: Seconds = 3600.0
    then: Literal["continue", "pause"] = "continue"


def _rising(stages: tuple[StageInput, ...]) -> tuple[StageInput, ...]:
    percents = [stage.percent for stage in stages]
    if percents != sorted(set(percents)):
        message = "each stage must have a higher percent than the one before"
        raise ValueError(message)
    if percents and percents[-1] != _WHOLE_SHARE:
        message = "the last stage must have percent 100"
        raise ValueError(message)
    return stages


class RolloutInput(Input):
    """How fast the executions begin."""

    per_minute: PerMinute | None = None
    max_running: Count | None = None
    stages: Annotated[tuple[StageInput, ...], Field(max_length=_MAX_STAGES), AfterValidator(_rising)] = ()


class AbortInput(Input):
    """Ends the job when so many of the ended executions ended so."""

    on: AbortOn
    percent: Percent
    min_ended: Count = 1


class RetryInput(Input):
    """Repeats of an execution before it ends so."""

    failed: Tries = 0
    timed_out: Tries = 0


class TimeoutsInput(Input):
    """Limits of one execution while its client is connected."""

    listing: Seconds | None = 3600.0
    execution: Seconds | None = None


class WindowInput(Input):
    """When bytes may leave a device: `for` so long from each tick of `cron`."""

    model_config = ConfigDict(populate_by_name=True)

    cron: Annotated[str, AfterValidator(read_cron)]
    seconds: Annotated[Seconds, Field(alias="for")]
    zone: Literal["device", "job"] = "job"
    on_end: Literal["pause", "finish"] = "pause"


def _key(text: str) -> str:
    read_key_template(text)
    return text


ApprovalInput = Annotated[
    Annotated[Literal["never", "always"], Tag("mode")] | Annotated[LimitsInput, Tag("limits")],
    Discriminator(lambda given: "limits" if isinstance(given, dict | LimitsInput) else "mode"),
]
Priority = Annotated[int, Field(strict=True, ge=-_MAX_PRIORITY, le=_MAX_PRIORITY), Whole]
Windows = Annotated[tuple[WindowInput, ...], Field(max_length=_MAX_WINDOWS)]


class JobBody(Input):
    """What a job requests; only `targets` and `files` are required."""

    targets: TargetsInput
    files: FilesInput
    key: Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_key)] = DEFAULT_KEY
    reason: Annotated[str, Field(max_length=MAX_REASON)] = ""
    metadata: Metadata = Field(default_factory=dict)
    options: Options = Options()
    approval: ApprovalInput = "never"
    rollout: RolloutInput = RolloutInput()
    abort: Annotated[tuple[AbortInput, ...], Field(max_length=_MAX_RULES)] = ()
    retry: RetryInput = RetryInput()
    timeouts: TimeoutsInput = TimeoutsInput()
    deadline: JobDeadline = 7 * DAY
    zone: Zone = "UTC"
    windows: Windows = ()
    priority: Priority = 0
    running: Literal["finish", "cancel"] = "finish"
    after: After = KEEP

    def spec(self, now: float) -> JobSpec:
        """The specification; a deadline that is an instant is counted from `now` (s since the epoch). `BadText`."""
        return JobSpec(
            targets=Targets(self.targets.clients, self.targets.selector, self.targets.mode),
            files=FileQuery(**dict(self.files)),
            key=self.key,
            reason=self.reason,
            metadata=self.metadata,
            options=UploadOptions(**self.options.model_dump()),
            approval=_approval(self.approval),
            rollout=Rollout(
                rate=self.rollout.per_minute,
                max_running=self.rollout.max_running,
                stages=tuple(Stage(**dict(stage)) for stage in self.rollout.stages),
            ),
            abort=tuple(AbortRule(**dict(rule)) for rule in self.abort),
            retry=Retry(**dict(self.retry)),
            timeouts=Timeouts(**dict(self.timeouts)),
            deadline=seconds_until(self.deadline, now),
            zone=self.zone,
            windows=windows_of(self.windows),
            priority=self.priority,
            running=self.running,
            after=self.after,
        )


class NewJob(JobBody):
    """A job, with an id of the caller's choice: the same id with the same body is the same job."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.NEW_JOB, examples.SMALLEST_JOB]})

    job_id: JobId | None = None


def windows_of(windows: tuple[WindowInput, ...]) -> tuple[Window, ...]:
    """The windows as the specification has them."""
    return tuple(Window(**dict(window)) for window in windows)


def _approval(given: ApprovalInput) -> Approval:
    if isinstance(given, LimitsInput):
        return Approval("limits", given.bytes_over, given.clients_over)
    return Approval(given)


# --- bodies of verbs -------------------------------------------------------------------------------------------------

_ClientIds = Annotated[tuple[Annotated[str, AfterValidator(require_client_id)], ...], Field(max_length=MAX_TARGETS)]


class ExecutionChoice(Input):
    """Executions of a bulk act: named clients, or a filter with the `count` and `set` that the list showed for it."""

    state: Annotated[tuple[ExecutionState, ...], Field(max_length=len(ExecutionState))] = ()
    reason_code: Annotated[str, *matching(r"^[a-z_]{1,64}\Z", "must be a reason code such as no_match")] | None = None
    clients: _ClientIds = ()
    count: SetCount | None = None
    set: SetName | None = None

    @model_validator(mode="after")
    def _shown(self) -> Self:
        shown_set(self.count, self.set)
        if self.set is None and not self.clients:
            message = "a filter needs the count and the set that the list of executions showed for it"
            raise ValueError(message)
        return self

    @property
    def choice(self) -> Choice:
        """As the service takes it."""
        return Choice(
            states=frozenset(self.state) or None,
            reason_code=self.reason_code,
            client_ids=frozenset(self.clients) or None,
            shown=shown_set(self.count, self.set),
        )


class ExtendBody(Input):
    """The new deadline: an RFC 3339 instant, or so long from now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"deadline": "12h"}]})

    deadline: JobDeadline


class ApproveBody(Input):
    """Approve what was listed up to `as_of`: of all clients, of `clients`, or of all but those in `except`.

    With the `count` and the `set` that the list of executions showed for `state=awaiting_approval`, the clients that
    wait must still be these.
    """

    model_config = ConfigDict(
        populate_by_name=True, json_schema_extra={"examples": [{"as_of": "2026-11-26T03:00:00.000Z", "later": "ask"}]}
    )

    as_of: Annotated[
        datetime,
        PlainValidator(_known_instant),
        WithJsonSchema({"type": "string", "format": "date-time", "description": "As the manifest showed it."}),
    ]
    later: Literal["ask", "approve"] = "ask"
    clients: _ClientIds | None = None
    but: Annotated[_ClientIds, Field(alias="except")] = ()
    count: SetCount | None = None
    set: SetName | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        shown_set(self.count, self.set)
        return self

    @property
    def shown(self) -> ShownSet | None:
        """What the caller saw waiting."""
        return shown_set(self.count, self.set)


class RejectBody(Input):
    """Refuse what these executions would send."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"where": {"clients": ["restaurant-1"]}}]})

    where: ExecutionChoice


class RetryBody(Input):
    """Repeat executions that are over; `deadline` is needed once the job's passed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"where": {"state": ["failed"], "count": 12, "set": "9f86d081884c7d65"}}]}
    )

    where: ExecutionChoice
    deadline: JobDeadline | None = None


class AddClientsBody(Input):
    """Clients to add: ids, `*` patterns and `group:NAME`, a selector, or both."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"clients": ["restaurant-9"]}]})

    # The first fault alone: to describe each of two million takes seconds and gigabytes.
    clients: Annotated[
        tuple[Annotated[str, AfterValidator(_target)], ...], Field(max_length=MAX_TARGETS), FailFast()
    ] = ()
    selector: JobSelector | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.clients and self.selector is None:
            message = "names no client: give clients, selector, or both"
            raise ValueError(message)
        return self


class RolloutPatch(Input):
    """New limits; null removes one."""

    per_minute: PerMinute | None = None
    max_running: Count | None = None


class JobPatch(Input):
    """What changes of a job that runs; a member that is left out stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"rollout": {"per_minute": "1/20m"}, "priority": 5, "deadline": "48h"}]}
    )

    rollout: RolloutPatch | None = None
    priority: Priority | None = None
    windows: Windows | None = None
    deadline: JobDeadline | None = None

    def tuning(self, now: float) -> Tuning:
        """As the service takes it; a deadline is counted from `now` (s). `BadText`."""
        given: set[str] = set()
        rollout = self.rollout or RolloutPatch()
        given |= {name for name in rollout.model_fields_set if name == "max_running"}
        given |= {"rate" for name in rollout.model_fields_set if name == "per_minute"}
        given |= {name for name in ("priority", "windows", "deadline") if getattr(self, name) is not None}
        return Tuning(
            given=frozenset(given),
            rate=rollout.per_minute,
            max_running=rollout.max_running,
            priority=self.priority or 0,
            windows=windows_of(self.windows or ()),
            deadline=0.0 if self.deadline is None else now + seconds_until(self.deadline, now),
        )
