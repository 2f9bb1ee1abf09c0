"""The one table of every code that the program can emit.

Rule: a code has one row. `docs/reference/reasons.md` and the pages below `/help/reasons` are made of it.
"""

from typing import Final

from control_plane.domain.explanations.ends import DEVICE, ENDS
from control_plane.domain.explanations.jobs import JOBS, RUNS
from control_plane.domain.explanations.model import Explanation, Explanations
from control_plane.domain.explanations.problems import PROBLEMS
from control_plane.domain.explanations.waits import WAITS

CHAPTERS: Final[dict[str, Explanations]] = {
    "What waits, or is at work": WAITS,
    "Jobs, executions and their files": JOBS,
    "Runs of a schedule": RUNS,
    "Ended by the control plane": ENDS,
    "Reported by a device": {code: row for code, row in DEVICE.items() if code not in {*WAITS, *JOBS, *ENDS}},
    "Refused requests": {code: row for code, row in PROBLEMS.items() if code not in WAITS},
}
"""By heading. A device's code that the control plane gives too has the control plane's row."""

EXPLANATIONS: Final[dict[str, Explanation]] = {
    str(code): row for chapter in CHAPTERS.values() for code, row in chapter.items()
}


def explained(code: str) -> Explanation | None:
    """The row of a code; None for one of a later version."""
    return EXPLANATIONS.get(code)
