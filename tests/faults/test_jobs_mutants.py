"""The checks of jobs can fail: each of these small faults, planted in the product, breaks the guarantee that it names.

Rule: one fault is one plausible mistake of one line; the scenario is the one that shows the guarantee. The numbers are
those of the design's list of what must always hold.
"""

import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace as with_changes
from typing import Any, Final, cast

import pytest
from msgspec.structs import replace

from control_plane.adapters.database.jobs.executions import SqlExecutions
from control_plane.domain.gate import gate
from control_plane.domain.jobs import executions, machine
from control_plane.domain.jobs.events import JobDeadlinePassed, Retried
from control_plane.domain.jobs.model import Execution, ExecutionState
from control_plane.domain.schedules.model import RunStatus
from control_plane.services import maintenance
from control_plane.services.clients import resync
from control_plane.services.clients.sets import ShownSets
from control_plane.services.gate import keeper
from control_plane.services.jobs import creation, effects, selections, turn
from control_plane.services.ports.database import Records
from control_plane.services.ports.jobs import ExecutionFilter
from control_plane.services.schedules import advance
from control_plane.services.uploads.writer import Decision, UploadWriter
from tests.faults import test_jobs_crash_points as sweeps
from tests.faults import test_jobs_guarantees as scenarios
from tests.simulation.history import Failure
from tests.simulation.jobs import database, history, plane
from tests.simulation.jobs.database import Fate
from tests.simulation.jobs.devices import Behaviour

Plant = Callable[[pytest.MonkeyPatch], None]
Scenario = Callable[[pytest.MonkeyPatch], object]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


# --- the plants ---


def a_resume_queues_what_failed(patch: pytest.MonkeyPatch) -> None:
    keep = effects.carry_over

    def carry(records: Records, writer: UploadWriter, before: Any, after: Any, now: float) -> None:  # noqa: ANN401
        keep(records, writer, before, after, now)
        if before.paused and not after.paused:
            found = records.jobs.executions.matching(ExecutionFilter(after.job_id))
            pairs = [(one, executions.apply(one, Retried(now=now))) for one in found if not one.open]
            records.jobs.executions.save([pair for pair in pairs if pair[0] is not pair[1]])

    patch.setattr(turn, "carry_over", carry)


def grants_since_the_report_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(keeper, "charged", lambda _budget, ledger, _paid, _now: ledger)


def a_cancel_ends_only_what_began(patch: pytest.MonkeyPatch) -> None:
    keep = SqlExecutions.all_open

    def begun(self: SqlExecutions, job_id: str, limit: int, *, sending: bool = True) -> list[Execution]:
        found = keep(self, job_id, limit, sending=sending)
        return [one for one in found if one.state is not ExecutionState.QUEUED]

    patch.setattr(SqlExecutions, "all_open", begun)


def a_deadline_is_not_judged(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(cast("dict[Any, Any]", machine.HANDLERS), JobDeadlinePassed, lambda job, _event: job)


def counts_only_grow(patch: pytest.MonkeyPatch) -> None:
    keep = SqlExecutions._count
    patch.setattr(SqlExecutions, "_count", lambda self, deltas: keep(self, +deltas))


def deadlines_of_uploads_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(effects, "_move_deadlines", lambda _records, _writer, _job, _now: None)


def limits_judge_one_page(patch: pytest.MonkeyPatch) -> None:
    keep = selections._checked

    def checked(turn: Any, job: Any, execution: Any, page: Any, known: Any, files: int, size: int) -> Any:  # noqa: ANN401
        assert files >= 0
        assert size >= 0
        return keep(turn, job, execution, page, known, 0, 0)

    patch.setattr(selections, "_checked", checked)


def a_changed_set_is_accepted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ShownSets, "require", lambda _self, _expected, _clients, _reach: None)


def a_missed_tick_leaves_no_row(patch: pytest.MonkeyPatch) -> None:
    keep = advance._insert

    def insert(records: Records, step: Any, run: Any) -> bool:  # noqa: ANN401
        return True if run.status is RunStatus.MISSED else keep(records, step, run)

    patch.setattr(advance, "_insert", insert)


def a_run_and_its_job_are_two_commits(patch: pytest.MonkeyPatch) -> None:
    """The run is stored, and its job is left for the next step, which does not look for it."""
    patch.setattr(advance, "make_job", lambda *_given: None)


def a_client_is_left_out(patch: pytest.MonkeyPatch) -> None:
    keep = creation.new_executions
    patch.setattr(creation, "new_executions", lambda job, client_ids, now: keep(job, client_ids[1:], now))


def a_pause_is_not_asked(patch: pytest.MonkeyPatch) -> None:
    keep = gate._of_job
    patch.setattr(gate, "_of_job", lambda want, world: keep(want, replace(world, paused=False)))


def the_answer_to_a_hello_passes_by_the_gate(patch: pytest.MonkeyPatch) -> None:
    def ungated(key: Any, upload: Any, duties: Any, attempt: int = 1, **_gated: bool) -> Decision:  # noqa: ANN401
        return Decision(key, upload, duties, attempt, gated=False)

    patch.setattr(resync, "Decision", ungated)


def a_cap_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    keep = gate._of_rollout
    patch.setattr(gate, "_of_rollout", lambda want, world: keep(want, replace(world, max_running=None)))


def a_rate_is_not_charged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(keeper, "free_at", lambda _tat, now, _cost: now)


def a_listing_never_times_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(executions, "_over", lambda _left: False)


def a_lost_request_is_not_repeated(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(executions, "_timer", lambda _execution, _now, _pause: 1e14)
    # The care for clocks that were wrong would find it an hour too far ahead.
    patch.setattr(maintenance, "LOOK_AGAIN", 1e16)


def a_repeated_listing_sends_again(patch: pytest.MonkeyPatch) -> None:
    """What an earlier attempt has proven is not known when the files are listed again."""
    patch.setattr(selections, "_known_rows", lambda _turn, _execution: {})


def keys_are_not_unique(patch: pytest.MonkeyPatch) -> None:
    """The database accepts a second upload with the same key, on an object store that overwrites."""
    content = database.migrated()

    def without() -> bytes:
        with sqlite3.connect(":memory:") as connection:
            connection.deserialize(content)
            ((text,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'uploads'").fetchall()
            columns = re.sub(r",\s*(CONSTRAINT \w+ )?UNIQUE \(s3_key\)", "", text)
            assert columns != text
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("PRAGMA legacy_alter_table = ON")
            rest = connection.execute("SELECT sql FROM sqlite_master WHERE tbl_name = 'uploads' AND type = 'index'")
            indexes = [sql for (sql,) in rest.fetchall() if sql]
            connection.execute("DROP TABLE uploads")
            for statement in (columns, *indexes):
                connection.execute(statement)
            connection.commit()
            return connection.serialize()

    changed = without()
    patch.setattr(database, "migrated", lambda: changed)
    none = with_changes(plane.SEEN, object_digests=frozenset(), if_none_match=False)
    patch.setattr(plane, "SEEN", none)


# --- the scenarios ---


def ticks(patch: pytest.MonkeyPatch) -> None:
    """Ticks go by while no control plane runs."""
    del patch
    scenarios.test_every_tick_is_accounted_for_after_hours_without_a_control_plane()


def kills(patch: pytest.MonkeyPatch) -> None:
    """A kill after every commit of a rollout."""
    del patch
    sweeps.sweep(2, Fate.AFTER, sweeps.roll_out, sweeps.check_rollout)


def tick_kills(patch: pytest.MonkeyPatch) -> None:
    """A kill after some commits of ticks."""
    del patch
    sweeps.sweep(1, Fate.AFTER, sweeps.tick, sweeps.check_ticks, every=5)


def histories(patch: pytest.MonkeyPatch) -> None:
    """Random histories, without faults of the site."""
    del patch
    for seed in range(60):
        try:
            history.play_jobs(seed, frozenset(history.FAULTS))
        except Failure as failure:
            # The check that failed, or a fault of the planted one itself.
            raise (failure.__cause__ or failure) from None


def _plain(scenario: Callable[[], object]) -> Scenario:
    return lambda _patch: scenario()


MUTANTS: Final[dict[Plant, tuple[str, Scenario]]] = {
    a_resume_queues_what_failed: ("1", _plain(scenarios.test_a_resume_repeats_nothing_that_ended)),
    a_cancel_ends_only_what_began: ("2", _plain(scenarios.test_a_cancel_ends_a_job_whose_devices_are_away)),
    a_deadline_is_not_judged: ("3", _plain(scenarios.test_a_job_past_its_deadline_ends_by_itself)),
    counts_only_grow: ("4", _plain(scenarios.test_a_resume_repeats_nothing_that_ended)),
    deadlines_of_uploads_stay: (
        "5",
        _plain(scenarios.test_an_extended_deadline_holds_for_the_job_and_its_open_uploads),
    ),
    limits_judge_one_page: ("6", scenarios.test_limits_judge_the_selection_and_not_its_pages),
    a_changed_set_is_accepted: ("7", _plain(scenarios.test_a_bulk_act_on_a_set_that_changed_is_refused)),
    a_missed_tick_leaves_no_row: ("8", ticks),
    a_run_and_its_job_are_two_commits: ("8", tick_kills),
    a_client_is_left_out: ("9", _plain(scenarios.test_a_resume_repeats_nothing_that_ended)),
    a_pause_is_not_asked: ("10", scenarios.test_a_job_that_is_paused_for_25_hours_loses_no_upload),
    the_answer_to_a_hello_passes_by_the_gate: (
        "10",
        scenarios.test_a_job_that_is_paused_for_25_hours_loses_no_upload,
    ),
    a_cap_is_not_counted: ("10", _plain(scenarios.test_a_resume_repeats_nothing_that_ended)),
    a_rate_is_not_charged: ("10", histories),
    a_listing_never_times_out: (
        "11",
        _plain(lambda: scenarios.test_a_bad_device_delays_its_own_execution_only(Behaviour.SILENT, 0)),
    ),
    a_lost_request_is_not_repeated: ("12", kills),
    a_repeated_listing_sends_again: ("12", _plain(scenarios.test_a_repeated_execution_sends_only_what_is_missing)),
    keys_are_not_unique: ("13", _plain(scenarios.test_two_jobs_of_one_key_overwrite_no_object)),
    grants_since_the_report_are_forgotten: (
        "14",
        _plain(scenarios.test_a_device_is_granted_no_more_than_its_cap_a_day_and_its_job_ends_by_itself),
    ),
}


@pytest.mark.parametrize("plant", [pytest.param(plant, id=plant.__name__) for plant in MUTANTS])
def test_a_planted_fault_breaks_its_guarantee(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    number, scenario = MUTANTS[plant]
    plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)) as broken:
        scenario(monkeypatch)
    assert broken.value is not None, number


def test_every_guarantee_has_a_planted_fault() -> None:
    assert {number for number, _ in MUTANTS.values()} == {str(number) for number in range(1, 15)}
