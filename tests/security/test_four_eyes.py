"""Four eyes: what a policy names needs a second person, and the one who asks can approve nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from control_plane.domain.access import Principal
from control_plane.domain.errors import Forbidden
from control_plane.domain.jobs.four_eyes import OFF, FourEyes, may_meet
from control_plane.domain.jobs.model import ApprovalState
from control_plane.domain.jobs.spec import Approval, FileQuery, JobSpec, Targets
from control_plane.domain.selectors import parse
from control_plane.services.jobs.service import JobRequest
from control_plane.settings import Settings, SettingsError
from tests.support.fake_services import NOW, SECRET
from tests.support.job_rest import JobSite, job_site, tills

ANA: Final = Principal("ana")
BEN: Final = Principal("ben")
POLICY: Final = FourEyes(bytes_over=1_000, clients_over=2, paths=("/data/secret/**",))


def spec(*paths: str, approval: Approval = Approval(), clients: int = 1, **more: Any) -> JobSpec:  # noqa: ANN401, B008
    names = tuple(f"till-{number}" for number in range(1, clients + 1))
    return JobSpec(targets=Targets(clients=names), files=FileQuery(paths=paths, **more), approval=approval)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[JobSite]:
    async with job_site(tmp_path) as found:
        found.jobs._four_eyes = POLICY
        await found.store(*tills(4))
        yield found


@pytest.mark.parametrize(
    "path", ["/data/secret/a.key", "/data/*", "/**", "/data/s?cret/x", "/data/secret/*", "/Data/SECRET/a"]
)
def test_a_pattern_that_may_name_a_secret_file_is_always_approved_first(path: str) -> None:
    assert POLICY.tightened(spec(path)).approval == Approval("always")
    assert POLICY.tightened(spec("/log/a.txt", path)).approval.mode == "always"
    assert POLICY.names(path)


def test_a_job_of_a_file_type_is_approved_where_paths_are_named() -> None:
    """Only the device knows which paths a type means."""
    assert POLICY.tightened(spec(type="logs")).approval == Approval("always")
    assert POLICY.tightened(spec("/log/a.txt", type="logs")).approval == Approval("always")
    assert FourEyes(bytes_over=1).tightened(spec(type="logs")).approval == Approval("limits", 1, None)


@pytest.mark.parametrize(
    ("own", "needed"),
    [
        (Approval(), Approval("limits", 1_000, 2)),
        (Approval("limits", 10, None), Approval("limits", 10, 2)),
        (Approval("limits", 5_000, 9), Approval("limits", 1_000, 2)),
        (Approval("always"), Approval("always")),
    ],
)
def test_a_policy_only_tightens_what_a_job_asks_for(own: Approval, needed: Approval) -> None:
    assert POLICY.tightened(spec("/log/a.txt", approval=own)).approval == needed
    assert OFF.tightened(spec("/data/secret/x", approval=own)).approval == own


def test_globs_that_name_no_common_path_do_not_meet() -> None:
    assert not may_meet("/log/*.txt", "/data/secret/**")
    assert not may_meet("/data/public/*", "/data/secret/**")


async def test_who_asks_for_a_job_cannot_approve_it_and_another_person_can(site: JobSite) -> None:
    view, _ = await site.jobs.create(ANA, JobRequest(spec("/data/secret/a"), "digest", "j"))
    assert view.job.approval is ApprovalState.PENDING
    every: dict[str, Any] = {"client_ids": None, "but": frozenset(), "as_of": NOW, "later": True}
    with pytest.raises(Forbidden, match="second person"):
        await site.jobs.approve(ANA, "j", **every)
    await site.jobs.approve(BEN, "j", **every)
    assert (await site.jobs.job(ANA, "j")).job.approve_later


async def test_who_may_approve_a_job_cannot_add_clients_to_it(site: JobSite) -> None:
    await site.jobs.create(ANA, JobRequest(spec("/data/a.csv"), "digest", "j"))
    with pytest.raises(Forbidden):
        await site.jobs.add_clients(BEN, "j", ["till-2", "till-3"], None)
    acted = await site.jobs.add_clients(ANA, "j", ["till-2", "till-3"], None)
    assert acted.view.job.approval is ApprovalState.PENDING


async def test_no_clients_are_added_once_what_is_listed_later_is_approved(site: JobSite) -> None:
    """Who approved a job of one client did not see the others."""
    await site.jobs.create(ANA, JobRequest(spec("/data/secret/a"), "digest", "j"))
    every: dict[str, Any] = {"client_ids": None, "but": frozenset(), "as_of": NOW}
    await site.jobs.approve(BEN, "j", **every, later=False)
    assert (await site.jobs.add_clients(ANA, "j", ["till-2"], None)).executions == 1
    await site.jobs.approve(BEN, "j", **every, later=True)
    with pytest.raises(Forbidden, match="create another one"):
        await site.jobs.add_clients(ANA, "j", ["till-3", "till-4"], None)
    assert (await site.jobs.job(ANA, "j")).job.clients == 2


HIGH: Final = FourEyes(selector=parse("class in (court,bank)"))


async def labelled(site: JobSite, client_id: str, **labels: str) -> None:
    site.jobs._four_eyes = HIGH
    await site.store(
        *[msgspec.structs.replace(one, set_labels=labels) for one in tills(4) if one.client_id == client_id]
    )


async def test_a_job_with_a_client_of_the_selector_is_approved_first(site: JobSite) -> None:
    """By the labels that the client has when the job is made; the dry run says so before."""
    await labelled(site, "till-2", **{"class": "bank"})
    free, _ = await site.jobs.create(ANA, JobRequest(spec("/data/a"), "digest", "free"))
    assert free.job.approval is ApprovalState.NOT_NEEDED
    for job_id, asked in (("one", Targets(clients=("till-2",))), ("many", Targets(clients=("till-*",)))):
        wanted = msgspec.structs.replace(spec("/data/a"), targets=asked)
        tried = await site.jobs.try_out(ANA, JobRequest(wanted, "digest", job_id))
        assert tried.spec.approval == Approval("always")
        view, _ = await site.jobs.create(ANA, JobRequest(wanted, "digest", job_id))
        assert view.job.approval is ApprovalState.PENDING
        with pytest.raises(Forbidden, match="second person"):
            await site.jobs.approve(ANA, job_id, client_ids=None, but=frozenset(), as_of=NOW, later=True)


async def test_a_client_of_the_selector_is_not_added_to_a_job_that_nobody_approved(site: JobSite) -> None:
    await labelled(site, "till-2", **{"class": "court"})
    await site.jobs.create(ANA, JobRequest(spec("/data/a"), "digest", "j"))
    with pytest.raises(Forbidden, match="create another job"):
        await site.jobs.add_clients(ANA, "j", ["till-2"], None)
    assert (await site.jobs.add_clients(ANA, "j", ["till-3"], None)).executions == 1


def test_a_job_that_takes_clients_later_is_approved_where_there_is_a_selector() -> None:
    """A client that comes may be one of the selector."""
    continuous = Targets(selector="ring=beta", mode="continuous")
    assert HIGH.tightened(msgspec.structs.replace(spec("/a"), targets=continuous)).approval == Approval("always")
    assert POLICY.tightened(msgspec.structs.replace(spec("/a"), targets=continuous)).approval.mode == "limits"


def test_the_settings_of_a_policy_need_tokens_and_absolute_paths() -> None:
    with pytest.raises(SettingsError, match="JWT_SECRET"):
        Settings.load({"FOUR_EYES_CLIENTS": "10"})
    with pytest.raises(SettingsError, match="FOUR_EYES_PATHS"):
        Settings.load({"FOUR_EYES_PATHS": "secret/**", "JWT_SECRET": SECRET})
    loaded = Settings.load({"FOUR_EYES_PATHS": "/a/**, /b/*", "FOUR_EYES_BYTES": "5", "JWT_SECRET": SECRET})
    assert loaded.four_eyes == FourEyes(5, None, ("/a/**", "/b/*"))
    with pytest.raises(SettingsError, match="FOUR_EYES_SELECTOR"):
        Settings.load({"FOUR_EYES_SELECTOR": "class in", "JWT_SECRET": SECRET})
    loaded = Settings.load({"FOUR_EYES_SELECTOR": "class in (court,bank)", "JWT_SECRET": SECRET})
    assert loaded.four_eyes == HIGH
    assert Settings.load({}).four_eyes == OFF
