"""What an execution's end means for the cell of its client and tick.

Rule: pure. A cell that was missing becomes `healed`, not `proven`: the file came after the end of its job.
"""

from typing import Final

from control_plane.domain.jobs.model import EXECUTION_OPEN, ExecutionState
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.schedules.model import CellState

MAX_HEALS: Final = 5
"""Healing executions of one cell: a file that is refused five times is not requested again."""

_UNWANTED: Final = frozenset({ExecutionState.CANCELLED, ExecutionState.REMOVED, ExecutionState.REJECTED})
"""Ends that a person, or the device, decided: connecting again changes nothing about them."""


def cell_after(was: CellState, state: ExecutionState, reason: str) -> CellState:
    """The cell after its execution reached `state` for `reason` (a code)."""
    if state in EXECUTION_OPEN:
        return was
    found = _of(state, reason)
    if was is CellState.MISSING and found in {CellState.PROVEN, CellState.UNCHANGED}:
        return CellState.HEALED
    return found


def may_heal(state: ExecutionState) -> bool:
    """Whether a cell whose execution ended so is tried again when its client connects."""
    return state not in _UNWANTED


def _of(state: ExecutionState, reason: str) -> CellState:
    match state:
        case ExecutionState.SUCCEEDED:
            return CellState.PROVEN
        case ExecutionState.SKIPPED:
            return CellState.UNCHANGED if reason == ReasonCode.UNCHANGED else CellState.EMPTY
        case _:
            return CellState.MISSING
