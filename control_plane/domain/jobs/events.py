"""What happens to jobs and executions: the input of their machines.

Rule: facts only. `now` is the instant (s since the epoch); durations are seconds, sizes bytes.
"""

from dataclasses import dataclass

from control_plane.domain.jobs.model import ApprovalState, ExecutionState
from control_plane.domain.jobs.spec import JobSpec, Retry
from control_plane.domain.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    now: float


# --- jobs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRequested(_Event):
    """An operator holds back all that is not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRequested(_Event):
    """An operator resumes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCancelRequested(_Event):
    """An operator ends it."""

    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDeadlinePassed(_Event):
    """Its time is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortThresholdMet(_Event):
    """Too many executions ended badly."""

    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePaused(_Event):
    """A stage of the rollout is done, and the request pauses there."""

    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class StageBegan(_Event):
    """Stage number `stage` (from 0) begins: executions with a place up to `below` may begin."""

    stage: int
    below: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AllEnded(_Event):
    """No execution is open: so many succeeded or had nothing to send (`done`), sent a part, ended otherwise."""

    done: int
    partial: int
    other: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineExtended(_Event):
    """An operator moves the deadline to the instant `deadline`."""

    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecificationChanged(_Event):
    """An operator retunes it."""

    spec: JobSpec
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientsJoined(_Event):
    """So many executions were added. `approval` is what the job needs with them."""

    count: int
    approval: ApprovalState


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalNeeded(_Event):
    """An execution waits for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalGranted(_Event):
    """A person approved what was listed; `later`: what is listed from now on too."""

    later: bool
    all_decided: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRetried(_Event):
    """Executions were queued again. `deadline` is the job's new one, if the old one passed."""

    deadline: float | None = None


JobEvent = (
    PauseRequested
    | ResumeRequested
    | JobCancelRequested
    | JobDeadlinePassed
    | AbortThresholdMet
    | StagePaused
    | StageBegan
    | AllEnded
    | DeadlineExtended
    | SpecificationChanged
    | ClientsJoined
    | ApprovalNeeded
    | ApprovalGranted
    | JobRetried
)


# --- executions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed(_Event):
    """`held` is for how long (s) the job was paused in all; `since` is when the client's connection began."""

    held: float = 0.0
    since: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun(_Timed):
    """The gate let it begin. The timeouts (s) are None where the deadline is the only one."""

    listing: float | None
    execution: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld(_Event):
    """It may not begin before `due_at`; the client is offline, or the gate refuses this one."""

    reason: Reason
    due_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Postponed(_Event):
    """Its next file cannot be begun before `due_at`."""

    due_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked(_Timed):
    """It is due. `connected`: commands reach the client, which was last seen at `seen_at`.

    `all_held`: the gate holds back every upload that is open.
    """

    connected: bool
    seen_at: float
    retry: Retry
    all_held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkReported(_Timed):
    """The device still walks its folders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageStored(_Timed):
    """A page of the selection was checked and stored.

    `matched_files` and `matched_bytes` are all that the device found. Of this page `files` (`bytes`) are to be sent,
    `proven` of them are proven from an earlier attempt; `unchanged` and `left_out` are not. `next_index` is None after
    the last page, or once a limit is reached. `ask_first`: a person has to
    approve it; `fresh`: the page has files that no person saw in an earlier attempt.
    """

    selection: str | None
    matched_files: int
    matched_bytes: int
    files: int = 0
    bytes: int = 0
    proven: int = 0
    proven_bytes: int = 0
    unchanged: int = 0
    left_out: int = 0
    next_index: int | None = None
    min_files: int = 0
    ask_first: bool = False
    fresh: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionReplaced(_Timed):
    """The device made the selection again: pages that were read before may not fit the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFull(_Timed):
    """The job holds as many files as it may: the listing is repeated later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingRefused(_Timed):
    """The device refuses the request for a selection: `rejected` by its rules, otherwise with an error."""

    reason: Reason
    rejected: bool
    final: bool
    retry: Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved(_Event):
    """A person approved what was listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disapproved(_Event):
    """A person refused it."""

    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted(_Timed):
    """Its files by outcome: `open` are being sent, `pending` wait for a place. `worst` is the reason of a failure."""

    open: int
    pending: int
    proven: int
    proven_bytes: int
    failed: int
    rejected: int
    worst: Reason | None
    retry: Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(_Event):
    """Its job ends it, as `ending`."""

    ending: ExecutionState
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed(_Event):
    """Its client no longer belongs to the job."""

    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejoined(_Event):
    """Its client belongs to the job again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(_Event):
    """An operator repeats it."""


ExecutionEvent = (
    Begun
    | Withheld
    | Looked
    | Postponed
    | WalkReported
    | PageStored
    | SelectionReplaced
    | JobFull
    | ListingRefused
    | Approved
    | Disapproved
    | Counted
    | Stopped
    | Removed
    | Rejoined
    | Retried
)
