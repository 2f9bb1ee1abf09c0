"""Jobs on the page: made by the form, approved, paused, retuned, retried; the grid of clients.

Rule: what a person does is done with the page; what others do meanwhile is done over REST.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Shoot, Watch
from tests.browser.devices import simulated
from tests.browser.settled import fits, settles
from tests.support.sites import Fleet

Visit = Callable[[str], Page]
FILES: Final = {"paths": ["/simulated/*"]}
TILLS: Final = 4


@pytest.fixture(scope="module", autouse=True)
def devices(site: Fleet) -> Iterator[None]:
    """`till-1` to `till-4`, and `once-1` and `once-2`, which fail the first upload of each file."""
    with ExitStack() as stack:
        stack.enter_context(simulated(site, TILLS))
        stack.enter_context(simulated(site, 2, "--failing-once", "1", name="once-{}"))
        yield


def made(site: Fleet, job_id: str, clients: list[str], **members: Any) -> str:  # noqa: ANN401 - JSON
    """A job over REST; its address on the page."""
    answer = site.post("/jobs", {"job_id": job_id, "targets": {"clients": clients}, "files": FILES, **members})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return f"/jobs/{job_id}"


def state(page: Page) -> Locator:
    """The word of the job's state, beside its name."""
    return page.locator("header.page .state")


def by_state(page: Page) -> Locator:
    """The segments of the job, each with its number."""
    return page.get_by_role("list", name="Clients by state")


def confirm(page: Page, act: str) -> None:
    """Agree to the question that is open."""
    page.get_by_role("dialog").get_by_role("button", name=act).click()


def test_a_job_is_made_by_the_form_after_a_dry_run_of_what_it_shows(visit: Visit) -> None:
    page = visit("/new/job")
    expect(page.get_by_role("button", name="Create the job")).to_be_disabled()
    page.get_by_label("Job id").fill("by-the-form")
    page.get_by_label("Clients, patterns and groups").fill("till-*")
    page.get_by_label("Clients, patterns and groups").press("Enter")
    page.get_by_label("Paths").fill("/simulated/*")
    page.get_by_label("Paths").press("Enter")
    expect(page.get_by_label("The request as JSON")).to_contain_text('"till-*"')
    expect(page.locator(".match")).to_have_text(f"{TILLS} clients match")
    page.get_by_role("button", name="Create the job").click()
    expect(page.locator("h1")).to_have_text("by-the-form")
    expect(state(page)).to_have_text("completed")
    expect(page.get_by_text(f"{TILLS} of {TILLS}")).to_be_visible()


def test_an_upload_is_requested_by_the_form_which_suggests_what_the_client_has(visit: Visit, site: Fleet) -> None:
    page = visit("/new/trigger")
    page.get_by_label("Client", exact=True).fill("till-1")
    expect(page.get_by_text("It is connected.")).to_be_visible()
    page.get_by_role("combobox", name="File", exact=True).fill("/simulated/")
    expect(page.locator("datalist option[value='/simulated/file.bin']")).to_be_attached()
    page.get_by_role("combobox", name="File", exact=True).fill("/simulated/file.bin")
    expect(page.get_by_label("The request as JSON")).to_contain_text('"file_path": "/simulated/file.bin"')
    page.get_by_role("button", name="Request the upload").click()
    expect(page).to_have_url(re.compile(r"#/uploads/[0-9a-f]+\?client_id=till-1$"))
    expect(page.locator("main")).to_contain_text("completed")


def test_a_file_that_is_to_be_deleted_is_named_in_the_question_and_refused_for_an_agent_without_it(
    visit: Visit, watch: Watch, shoot: Shoot
) -> None:
    watch.expected.append("422")
    page = visit("/new/trigger?client=till-1")
    page.get_by_label("Once proven, the file on the device").select_option("delete")
    expect(page.get_by_text("Only where ALLOW_AFTER of the device allows it")).to_be_visible()
    shoot("after-delete")
    page.get_by_role("button", name="Request the upload").click()
    question = page.get_by_role("dialog")
    expect(question).to_contain_text("is deleted on its device")
    confirm(page, "Request the upload")
    expect(page.get_by_text("can delete and move no files").first).to_be_visible()


def test_what_the_server_refuses_stands_below_its_field(visit: Visit, watch: Watch) -> None:
    watch.expected.append("422")
    page = visit("/new/job?client=till-1")
    page.get_by_label("Paths").fill("not/absolute")
    page.get_by_label("Paths").press("Enter")
    expect(page.get_by_label("Paths", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(page.locator("small.wrong")).to_contain_text("is not absolute")


def test_an_approval_of_all_is_refused_once_others_wait_and_then_approves_those_that_are_left(
    visit: Visit, site: Fleet, watch: Watch
) -> None:
    watch.expected += ["409", "ERR_FAILED"]
    page = visit(made(site, "ask-first", ["till-*"], approval="always"))
    expect(page.get_by_role("heading", name=f"{TILLS} clients wait for approval")).to_be_visible()
    page.get_by_role("checkbox", name="Select till-1").check()
    page.get_by_role("button", name="Reject 1 client…").click()
    confirm(page, "Reject")
    expect(page.get_by_role("heading", name="3 clients wait for approval")).to_be_visible()
    # Their number cannot be read: that is shown, and nothing is asked.
    counted = re.compile(r"/executions\?.*limit=1$")
    page.route(counted, lambda route: route.abort())
    page.get_by_role("button", name="Approve all…").click()
    expect(page.get_by_text("The server does not answer").first).to_be_visible()
    page.unroute(counted)
    page.get_by_role("button", name="Approve all…").click()
    expect(page.get_by_role("dialog")).to_contain_text("Approve 3 clients")
    assert site.post("/jobs/ask-first/reject", {"where": {"clients": ["till-2"]}}).status_code == httpx.codes.OK
    confirm(page, "Approve all")
    expect(page.get_by_role("dialog")).to_contain_text("You saw 3; 2 match now")
    confirm(page, "Look again")
    expect(page.get_by_role("heading", name="2 clients wait for approval")).to_be_visible()
    page.get_by_role("button", name="Approve all…").click()
    confirm(page, "Approve all")
    expect(state(page)).to_have_text("completed")
    counts = site.get("/jobs/ask-first")["executions"]
    assert (counts["succeeded"], counts["rejected"]) == (2, 2)


def test_a_job_is_paused_resumed_and_retuned_also_after_another_person_changed_it(
    visit: Visit, site: Fleet, watch: Watch
) -> None:
    watch.expected.append("412")
    page = visit(made(site, "slowly", ["till-*"], rollout={"per_minute": "1/20m"}))
    page.get_by_role("button", name="Pause").click()
    expect(state(page)).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(state(page)).to_have_text("running")
    page.get_by_role("button", name="Retune…").click()
    page.get_by_label("Executions a minute").fill("600")
    version = site.get("/jobs/slowly")["version"]
    changed = httpx.patch(
        f"{site.site.server}/jobs/slowly", json={"priority": 7}, headers={"If-Match": f'"{version}"'}, timeout=60
    )
    assert changed.status_code == httpx.codes.OK
    page.get_by_role("button", name="Send the changes").click()
    told = page.get_by_role("alert").filter(has_text="Another person changed this job meanwhile")
    expect(told).to_contain_text("Priority: 0 became 7")
    assert site.get("/jobs/slowly")["spec"]["rollout"]["per_minute"] == "1/1200s"
    # What was typed is still there, and is sent on top of the newest version.
    expect(page.get_by_label("Priority")).to_have_value("7")
    page.get_by_role("button", name="Send the changes").click()
    expect(state(page)).to_have_text("completed")
    spec = site.get("/jobs/slowly")["spec"]
    assert (spec["rollout"]["per_minute"], spec["priority"]) == (600, 7)


def test_what_failed_is_found_by_its_segment_and_retried(visit: Visit, site: Fleet) -> None:
    page = visit(made(site, "some-fail", ["till-1", "once-*"]))
    expect(state(page)).to_have_text("completed")
    by_state(page).get_by_role("link", name="2 failed").click()
    expect(page).to_have_url(re.compile(r"#/jobs/some-fail\?state=failed$"))
    rows = page.get_by_role("table", name="Executions").get_by_role("row")
    expect(rows).to_have_count(3)
    expect(page.get_by_role("group", name=re.compile("Act on")).get_by_text("2 match")).to_be_visible()
    page.get_by_role("button", name="Retry 2 failed clients…").click()
    confirm(page, "Retry")
    expect(page.locator("header.page")).to_contain_text("outcome: all")
    assert site.get("/jobs/some-fail")["executions"]["succeeded"] == 3


def test_each_client_is_a_cell_that_the_arrow_keys_reach(visit: Visit, site: Fleet, shoot: Shoot) -> None:
    page = visit(made(site, "as-cells", ["till-*"]))
    expect(state(page)).to_have_text("completed")
    cells = page.locator(".cells .cell.good")
    expect(cells).to_have_count(TILLS)
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("link", name="till-2: succeeded (sent)")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"#/jobs/as-cells\?client=till-2$"))
    expect(page.get_by_role("table", name="Executions").get_by_role("row")).to_have_count(2)
    for tab, text in (
        ("Files", "/simulated/file.bin"),
        ("Results", "backhaul job pull as-cells"),
        ("Specification", "targets"),
    ):
        page.get_by_role("navigation", name="Parts of the job").get_by_role("link", name=tab).click()
        expect(page.locator("main")).to_contain_text(text)
    shoot("job", 360, "dark")
    assert fits(page, 360)


def test_many_clients_are_segments_and_an_act_on_them_asks_for_their_number(visit: Visit, site: Fleet) -> None:
    expected = [{"client_id": f"box-{number}"} for number in range(1, 501)]
    assert site.post("/clients", expected).status_code == httpx.codes.OK  # type: ignore[arg-type]
    page = visit(made(site, "wide", ["box-*"]))
    expect(by_state(page).get_by_role("link", name="500 queued")).to_be_visible()
    expect(page.locator(".cells")).to_have_count(0)
    expect(page.get_by_text("The first 50 of 500 are shown.")).to_be_visible()
    assert settles(lambda: page.evaluate("document.querySelectorAll('*').length") < 2_000)
    page.get_by_role("button", name="Cancel…").click()
    act = page.get_by_role("dialog").get_by_role("button", name="Cancel the job")
    expect(act).to_be_disabled()
    page.get_by_role("dialog").get_by_label("Type 500 to confirm").fill("500")
    act.click()
    expect(state(page)).to_have_text("cancelled")
    page.get_by_role("navigation", name="Views").get_by_role("link", name="Jobs").click()
    page.get_by_label("State", exact=True).select_option("cancelled")
    expect(page.get_by_role("table", name="Jobs").get_by_role("row")).to_have_count(2)
    page.reload()
    expect(page.get_by_label("State", exact=True)).to_have_value("cancelled")
    expect(page.get_by_role("table", name="Jobs").get_by_role("row")).to_have_count(2)
