"""The codes of jobs, executions, their files, and the runs of schedules.

Rule: as in `model`.
"""

from typing import Final

from control_plane.domain.explanations.model import Explanation, Explanations, ShownIn
from control_plane.domain.reasons import ReasonCode

_NOTHING: Final = "Nothing: this is the normal course"
_FINAL: Final = "Final"
_OVER: Final = "The execution is over; `backhaul job retry ID` repeats it"

JOBS: Final[Explanations] = {
    ReasonCode.CREATED: Explanation(
        "The execution waits for its turn", _NOTHING, "The job begins it", (ShownIn.EXECUTION,)
    ),
    ReasonCode.RETRYING: Explanation(
        "The execution failed or timed out, and begins again by itself; the text has the first cause",
        "Nothing, or remove the cause that the text names",
        "The pause before the next try passes",
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.RETRIED: Explanation(
        "An operator repeats the execution", _NOTHING, "The job begins it", (ShownIn.EXECUTION,)
    ),
    ReasonCode.REJOINED: Explanation(
        "The client belongs to the job again: its labels match once more",
        _NOTHING,
        "The job begins it",
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.LISTING: Explanation(
        "The client was requested to list its files that match",
        _NOTHING,
        "The client answers, or the job's listing timeout passes while it is connected",
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.APPROVAL: Explanation(
        "The files are listed, and an operator has to approve them",
        "Look at the manifest and approve it: `backhaul job approve ID`",
        "An operator approves or refuses, or the deadline passes",
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.JOB_FULL: Explanation(
        "The job holds as many files as it may (MAX_JOB_FILES)",
        "Narrow the selection of files, or raise MAX_JOB_FILES",
        "Files of the job are sent, so that there is room",
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.NO_MATCH: Explanation(
        "No file on the client matches",
        "Compare the paths with what is there: `backhaul files CLIENT PATTERN`. A path may lie outside ALLOWED_ROOTS",
        _OVER,
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.OVER_LIMIT: Explanation(
        "Files match, and each is beyond the limits of the request",
        "Raise the limits of the request: `max_files`, `max_bytes`, the sizes or the ages",
        _OVER,
        (ShownIn.EXECUTION, ShownIn.FILE),
    ),
    ReasonCode.UNCHANGED: Explanation(
        "No file changed since it was proven in the same scope",
        "Nothing: the objects are there. Without `skip_unchanged` they are sent again",
        _FINAL,
        (ShownIn.EXECUTION, ShownIn.FILE),
    ),
    ReasonCode.UNSUPPORTED: Explanation(
        "The agent does not know this action, digest or option",
        "Update the agent",
        "An agent that knows it; then repeat the request",
        (ShownIn.UPLOAD, ShownIn.EXECUTION, ShownIn.FILE),
    ),
    ReasonCode.NEEDS_OPERATOR_SIGNATURE: Explanation(
        "The device takes new work from an operator's signature alone",
        "Use `backhaul trigger --sign` with OPERATOR_KEY_FILE, or change `commands_need` in the policy of the device",
        "The device connects with another policy; then repeat the request",
        (ShownIn.EXECUTION, ShownIn.FILE),
    ),
    ReasonCode.BY_DEVICE: Explanation(
        "The device refuses: its configuration does not allow what is requested",
        "Compare the request with ALLOWED_ROOTS, TYPES and UPLOAD_HOSTS of the device",
        _OVER,
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.BY_OPERATOR: Explanation(
        "An operator decided it: refused what would be sent, started the run, or skipped the tick",
        "Nothing; the text names who, where that is known",
        _FINAL,
        (ShownIn.EXECUTION, ShownIn.RUN),
    ),
    ReasonCode.LISTING_TIMEOUT: Explanation(
        "The client was connected, and did not list its files in time",
        "Look at the device: a file system may not answer. Narrow the paths, or raise the listing timeout",
        _OVER,
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.EXECUTION_TIMEOUT: Explanation(
        "The client was connected, and was not done in time",
        "Look at its uploads; raise the execution timeout, or select less",
        _OVER,
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.CANCELLED: Explanation(
        "An operator cancelled it",
        "Nothing, or request it again",
        _FINAL,
        (ShownIn.JOB, ShownIn.EXECUTION, ShownIn.FILE, ShownIn.UPLOAD),
    ),
    ReasonCode.ABORTED: Explanation(
        "As many executions failed as the job's abort rule allows",
        "Correct what failed first: the most frequent code of the job. Then `backhaul job retry ID`",
        _FINAL,
        (ShownIn.JOB, ShownIn.EXECUTION),
    ),
    ReasonCode.NO_LONGER_MATCHES: Explanation(
        "The client no longer matches the targets of the job",
        "Nothing, or set its labels back",
        "The client matches again, while the job is open",
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.CLIENT_FORGOTTEN: Explanation(
        "An operator deleted the client",
        "Nothing; an agent that connects again is a new client",
        _FINAL,
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.BAD_KEY: Explanation(
        "No object may have the key that the job's template gives this file, or another file has it",
        "Change the template of keys: `{client}`, `{path}` and `{tick}` make keys differ",
        _FINAL,
        (ShownIn.FILE,),
    ),
    ReasonCode.FILES_FAILED: Explanation(
        "Files of the execution failed",
        "Look at its files: each has its own code",
        _OVER,
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.SENT: Explanation("Every file is proven", _NOTHING, _FINAL, (ShownIn.EXECUTION, ShownIn.JOB)),
    ReasonCode.PAUSED: Explanation(
        "The job is paused: by an operator, or by a stage that failed too often",
        "Read the text; resume it with `backhaul job resume ID`",
        "An operator resumes or cancels the job, or its deadline passes",
        (ShownIn.JOB,),
    ),
}
RUNS: Final[Explanations] = {
    ReasonCode.ON_TIME: Explanation("The tick was due, and its job was made", _NOTHING, _FINAL, (ShownIn.RUN,)),
    ReasonCode.CAUGHT_UP: Explanation(
        "The tick came while the control plane was down, and is made up for", _NOTHING, _FINAL, (ShownIn.RUN,)
    ),
    ReasonCode.BACKFILL: Explanation("An operator requested the tick afterwards", _NOTHING, _FINAL, (ShownIn.RUN,)),
    ReasonCode.OVERLAP: Explanation(
        "The job of the tick before was still running",
        "Give the job a shorter deadline, tick less often, or choose another `overlap`",
        "A queued tick: the job before it ends. A skipped tick: final",
        (ShownIn.RUN,),
    ),
    ReasonCode.SCHEDULE_PAUSED: Explanation(
        "The schedule was paused when the tick was due",
        "Resume it: `backhaul schedule resume ID`; `backfill` makes up for the ticks",
        _FINAL,
        (ShownIn.RUN,),
    ),
    ReasonCode.TOO_OLD: Explanation(
        "The tick came while the control plane was down, longer ago than `catch_up.within`",
        "Make up for it with `backhaul schedule backfill ID`, or raise `catch_up.within`",
        _FINAL,
        (ShownIn.RUN,),
    ),
    ReasonCode.NO_CATCH_UP: Explanation(
        "The tick came while the control plane was down, and `catch_up.runs` is `none`",
        "Make up for it with `backhaul schedule backfill ID`, or choose another `catch_up.runs`",
        _FINAL,
        (ShownIn.RUN,),
    ),
    ReasonCode.SUPERSEDED: Explanation(
        "A later tick was due too, and `catch_up.runs` is `latest`",
        "Nothing, or make up for it with `backhaul schedule backfill ID`",
        _FINAL,
        (ShownIn.RUN,),
    ),
    ReasonCode.JOB_REFUSED: Explanation(
        "No job could be made of the schedule's request; the text has the cause",
        "Correct the request of the schedule: `PUT /schedules/{id}`",
        "The next tick, with a request that is right",
        (ShownIn.RUN,),
    ),
}
