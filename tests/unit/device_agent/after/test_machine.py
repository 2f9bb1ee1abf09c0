"""The steps as a table: in no order of events is a file deleted that was not hidden, left alone and compared."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from device_agent.after.machine import (
    TABLE,
    Acknowledged,
    Checked,
    Differs,
    Ended,
    Event,
    FileKept,
    GraceOver,
    Hidden,
    Phase,
    first,
    follow,
)
from device_agent.transfer.records import AfterStep, Afterwards
from schemas.values import AfterOutcome, ErrorCode
from tests.unit.device_agent.device import fingerprint

FOUND = fingerprint(10)
DUE = Afterwards("delete", "/data/a", "m1", 1, 3, source=FOUND)
EVENTS: tuple[Event, ...] = (
    Hidden(),
    GraceOver(),
    Checked(FOUND),
    Differs(),
    Ended(AfterOutcome.DELETED),
    FileKept(ErrorCode.SOURCE_CHANGED, "it changed"),
    Acknowledged(),
)


@given(events=st.lists(st.sampled_from([*EVENTS, "restart"]), max_size=30))
def test_no_order_of_events_deletes_what_was_not_checked(events: list[Event | str]) -> None:
    after, phase, checked = DUE, first(DUE), False
    for event in events:
        if isinstance(event, str):
            phase = first(after) if phase is not Phase.OVER else phase
            continue
        was = phase
        after, phase = follow(after, phase, event)
        checked = (checked or (was is Phase.CHECK and isinstance(event, Checked))) and phase is not Phase.HIDE
        if phase is Phase.END:
            assert checked
            assert (after.step, after.found) == (AfterStep.ENDING, FOUND)
        if after.outcome == AfterOutcome.DELETED:
            assert checked
        if phase in {Phase.REPORT, Phase.OVER}:
            assert after.step is AfterStep.REPORTED
            assert after.outcome is not None


def test_each_phase_goes_on_after_a_restart_from_what_is_durable() -> None:
    steps = {step: first(replace(DUE, step=step)) for step in AfterStep}
    assert steps == {AfterStep.DUE: Phase.HIDE, AfterStep.ENDING: Phase.END, AfterStep.REPORTED: Phase.REPORT}
    assert {phase for phase, _ in TABLE} == set(Phase) - {Phase.OVER}
