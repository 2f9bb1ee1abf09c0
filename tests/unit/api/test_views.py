"""How REST shows an upload: exact states and five status values, progress by bytes, instants in UTC."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.api import models, views
from control_plane.domain.uploads.model import PartRecord, State, Upload
from control_plane.services.ports.database import PARKED
from control_plane.services.uploads.service import UploadView
from schemas.parts import MIB, plan_parts
from tests.support.fake_operations import NOW, an_upload

PART = 5 * MIB


def half_done(**changes: object) -> Upload:
    """12 MiB in three parts, of which the first is stored."""
    parts = {1: PartRecord("d", "e"), 2: PartRecord("d")}
    upload = an_upload(state=State.IN_PROGRESS, file_size=12 * MIB, part_size=PART, parts=parts)
    return replace(upload, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", State)
def test_every_state_has_the_seeds_word(state: State) -> None:
    expected = {"dispatched": "in_progress", "completing": "in_progress", "rejected": "failed", "expired": "failed"}
    assert views.STATUS[state] == expected.get(state, state)


def test_status_and_state_are_both_obeyed() -> None:
    assert views.states_of(None, None) is None
    assert views.states_of(models.Status.FAILED, None) == frozenset({State.FAILED, State.REJECTED, State.EXPIRED})
    assert views.states_of(models.Status.FAILED, State.EXPIRED) == frozenset({State.EXPIRED})
    assert views.states_of(models.Status.QUEUED, State.EXPIRED) == frozenset()


def test_before_the_first_offer_nothing_is_guessed() -> None:
    shown = views.shown(UploadView(an_upload(), "the client is offline", NOW + 30))
    assert (shown.progress, shown.bytes_uploaded, shown.completed_parts) == (0.0, 0, 0)
    assert (shown.total_parts, shown.file_size) == (None, None)
    assert (shown.reason, shown.next_wake_at) == ("the client is offline", "2025-11-01T10:00:30.000Z")


def test_progress_is_the_greater_of_what_is_stored_and_what_is_said_to_be_sent() -> None:
    assert views.bytes_uploaded(half_done()) == PART
    assert views.bytes_uploaded(half_done(bytes_sent=7 * MIB)) == 7 * MIB
    assert views.bytes_uploaded(half_done(bytes_sent=99 * MIB)) == 12 * MIB
    assert views.progress(half_done()) == 41.6


def test_the_last_part_is_shorter() -> None:
    assert views.bytes_uploaded(half_done(parts={3: PartRecord("d", "e")})) == 2 * MIB


def test_completed_is_a_hundred_whatever_the_last_status_said() -> None:
    shown = views.shown(UploadView(half_done(state=State.COMPLETED), None, None))
    assert (shown.progress, shown.bytes_uploaded) == (100.0, 12 * MIB)
    assert (shown.completed_parts, shown.total_parts) == (3, 3)
    empty = an_upload(state=State.COMPLETED, file_size=0, part_size=PART)
    assert (views.progress(empty), views.bytes_uploaded(empty), views.completed_parts(empty)) == (100.0, 0, 1)


@given(st.integers(0, 200 * MIB), st.sets(st.integers(1, 40)), st.integers(0, 2**40))
def test_bytes_agree_with_the_plan(file_size: int, numbers: set[int], bytes_sent: int) -> None:
    plan = plan_parts(file_size, PART)
    stored = {number for number in numbers if number in plan.numbers}
    upload = half_done(
        file_size=file_size, parts={number: PartRecord("d", "") for number in numbers}, bytes_sent=bytes_sent
    )
    assert views.bytes_uploaded(upload) == max(plan.size_of(stored), min(bytes_sent, file_size))
    assert 0 <= views.progress(upload) <= 100


def test_a_wake_up_that_never_comes_is_null() -> None:
    assert views.instant(PARKED) is None
    assert views.instant(None) is None
    assert views.instant(0) == "1970-01-01T00:00:00.000Z"
