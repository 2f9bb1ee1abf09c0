"""Uploads that wait for a person on the device: nothing of the file is read, and only a decision ends the wait."""

from pathlib import Path

import msgspec
import pytest

from device_agent.limits.limits import Limits, Rules
from device_agent.local.requests import Decided, decide, waiting
from device_agent.state.consents import FILE_NAME, Consents
from device_agent.state.journal import Journal
from device_agent.transfer.events import CloseReceived, OpenSource
from device_agent.transfer.model import State
from device_agent.transfer.responses import progress_of
from device_agent.uploads import Run, Uploads
from schemas.values import ErrorCode
from tests.unit.device_agent.device import order


def asks_for(path: str) -> str | None:
    return "camera" if path.startswith("/camera/") else None


class Table:
    """Uploads over a real journal and real approvals."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.folder = folder
        self.journal, transfers = Journal.open(folder)
        self.consents = Consents(folder, asks_for)
        self.uploads = Uploads(
            self.journal, transfers.values(), workers=1, now=0.0, limits=limits, consents=self.consents
        )

    def begin(self, upload_id: str, path: str) -> Run:
        return self.uploads.begin(order(upload_id=upload_id, file_path=path, owner="cp"), acknowledges=0, now=0.0)

    def opened(self, now: float = 1.0) -> set[str]:
        """Schedule; the uploads whose file is opened."""
        self.uploads.schedule(now)
        self.journal.commit()
        return {run.upload_id for run, effect in self.uploads.take_effects() if isinstance(effect, OpenSource)}

    def decide(self, verdict: str, *names: str) -> Decided:
        return decide(self.uploads, msgspec.json.encode({"verdict": verdict, "uploads": names}), 1.0)

    def restart(self) -> "Table":
        self.journal.close()
        return Table(self.folder)


def reason(run: Run) -> str:
    return progress_of(run.transfer, 1.0).reason or ""


def test_an_upload_of_an_asking_class_is_not_opened_before_it_is_approved(tmp_path: Path) -> None:
    table = Table(tmp_path)
    held, free = table.begin("u1", "/camera/a.jpg"), table.begin("u2", "/data/a.csv")
    assert table.opened() == {"u2"}
    assert reason(held).startswith("device_consent: a person on the device must allow it: class 'camera'")
    assert "device_consent" not in reason(free)
    [request] = waiting(table.uploads)
    assert (request.upload_id, request.path, request.path_class, request.owner) == (
        "u1",
        "/camera/a.jpg",
        "camera",
        "cp",
    )
    decided = table.decide("approve", "u1")
    assert ([one.upload_id for one in decided.done], decided.problems) == (["u1"], ())
    assert table.opened() == {"u1"}
    assert list(waiting(table.uploads)) == []


def test_an_upload_that_waits_for_a_person_wakes_nothing(tmp_path: Path) -> None:
    """Without limits of the device there is no next look: the loop sleeps until something arrives."""
    table = Table(tmp_path)
    table.begin("u1", "/camera/a.jpg")
    table.opened()
    assert table.uploads.next_wake() is None
    with_limits = Table(tmp_path / "more", Limits(Rules(load=1000.0)))
    with_limits.begin("u1", "/camera/a.jpg")
    with_limits.opened()
    assert (with_limits.uploads.next_wake() or 0.0) > 1.0


def test_a_denied_upload_ends_rejected_and_stays_so_after_a_restart(tmp_path: Path) -> None:
    table = Table(tmp_path)
    run = table.begin("u1", "/camera/a.jpg")
    table.opened()
    assert [one.upload_id for one in table.decide("deny", "u1").done] == ["u1"]
    ending = run.transfer.ending
    assert run.transfer.state is State.ENDED
    assert ending is not None
    assert ending.code is ErrorCode.PATH_NOT_ALLOWED
    table.journal.commit()
    after = table.restart()
    assert after.opened() == set()
    assert list(waiting(after.uploads)) == []
    assert after.decide("approve", "u1").problems == ("u1: no upload with this id waits for consent",)


def test_an_approval_outlives_a_restart_and_is_only_for_its_upload_and_path(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.begin("u1", "/camera/a.jpg")
    table.begin("u2", "/camera/b.jpg")
    table.opened()
    table.decide("approve", "u1")
    after = table.restart()
    assert after.opened() == {"u1"}
    assert not after.consents.holds("u1", "/camera/other.jpg")
    assert [one.upload_id for one in waiting(after.uploads)] == ["u2"]


def test_approvals_of_uploads_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    consents = Consents(tmp_path, asks_for)
    consents.approve("old", "/camera/a", {"old"})
    consents.approve("new", "/camera/b", {"new"})
    assert (consents.holds("old", "/camera/a"), consents.holds("new", "/camera/b")) == (False, True)


def test_an_approval_ends_with_its_upload(tmp_path: Path) -> None:
    """Tombstones are bounded, so the id may come again one day: for the file as it is then, a person is asked anew."""
    table = Table(tmp_path)
    for name in ("u1", "u2"):
        table.begin(name, f"/camera/{name}")
    table.opened()
    table.decide("approve", "u1", "u2")
    run = table.uploads.get("u1")
    assert run is not None
    table.uploads.handle(run, CloseReceived(now=2.0, outcome="completed"))
    assert table.opened() == {"u2"}
    again = table.begin("u1", "/camera/u1")
    assert table.opened() == set()
    assert reason(again).startswith("device_consent")


def test_an_approval_of_an_upload_that_ended_before_a_restart_ends_too(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.begin("u1", "/camera/u1")
    table.opened()
    table.decide("approve", "u1")
    run = table.uploads.get("u1")
    assert run is not None
    table.uploads.handle(run, CloseReceived(now=2.0, outcome="completed"))
    table.journal.commit()
    # As if the process had been killed before it forgot the approval.
    table.consents.approve("u1", "/camera/u1", ())
    after = table.restart()
    assert not after.consents.holds("u1", "/camera/u1")
    assert not Consents(tmp_path, asks_for).holds("u1", "/camera/u1")


def test_another_attempt_of_an_approved_upload_needs_no_further_approval(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.begin("u1", "/camera/u1")
    table.opened()
    table.decide("approve", "u1")
    table.uploads.begin(order(upload_id="u1", file_path="/camera/u1", owner="cp", attempt=2), acknowledges=0, now=1.0)
    assert table.opened() == {"u1"}


def test_an_attempt_with_another_path_is_refused_while_a_person_decides(tmp_path: Path) -> None:
    """The person has seen the first path, and names the upload by its id."""
    table = Table(tmp_path)
    table.begin("u1", "/camera/harmless.jpg")
    table.opened()
    other = order(upload_id="u1", file_path="/camera/other.jpg", owner="cp", attempt=2)
    run = table.uploads.begin(other, acknowledges=0, now=1.0)
    assert table.opened() == set()
    assert run.transfer.ending is not None
    assert run.transfer.ending.code is ErrorCode.BAD_REQUEST
    assert table.decide("approve", "u1").problems == ("u1: no upload with this id waits for consent",)
    assert table.opened() == set()


def test_an_approval_that_the_disk_does_not_take_changes_nothing(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.begin("u1", "/camera/a.jpg")
    table.opened()
    (tmp_path / f"{FILE_NAME}.new").mkdir()
    [problem] = table.decide("approve", "u1").problems
    assert problem.startswith("u1: the approval cannot be kept")
    assert table.opened() == set()


@pytest.mark.parametrize("content", [b"", b"{", b'[{"upload_id": 1}]', b"\xff"])
def test_damaged_approvals_approve_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert not Consents(tmp_path, asks_for).holds("u1", "/camera/a")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("up-1",), "up-1: 2 uploads begin so"),
        (("gone",), "gone: no upload"),
        (("free",), "free: no upload"),
        (("up-12", "gone"), "gone: no upload"),
    ],
)
def test_a_decision_is_for_exactly_the_uploads_that_it_names(
    tmp_path: Path, names: tuple[str, ...], problem: str
) -> None:
    table = Table(tmp_path)
    for name in ("up-12", "up-13"):
        table.begin(name, f"/camera/{name}")
    table.begin("free", "/data/a")
    table.opened()
    decided = table.decide("approve", *names)
    assert [one.upload_id for one in decided.done] == [name for name in names if name == "up-12"]
    assert [one.startswith(problem) for one in decided.problems] == [True]


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"verdict": "all", "uploads": []}', b"[" * 10_000, b'{"x":' + b"[" * 10_000, b"\xff" * 100]
)
def test_what_is_no_decision_changes_nothing(tmp_path: Path, data: bytes) -> None:
    table = Table(tmp_path)
    table.begin("u1", "/camera/a.jpg")
    table.opened()
    decided = decide(table.uploads, data, 1.0)
    assert decided.done == ()
    assert len(decided.problems) == 1
    assert table.opened() == set()
