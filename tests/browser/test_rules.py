"""What holds for every view: pushed changes, filters in the address, copied commands, errors with their page.

Rule: a rule of the page that one view's own tests show is not shown again here.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import Watch
from tests.browser.populated import FILE, Populated, populated
from tests.support.patience import came_true
from tests.support.sites import Fleet, serve

Visit = Callable[[str], Page]
REASONS: Final = "/help/reasons/"
ID: Final = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Populated]:
    """A site with something in every view."""
    with populated(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(scope="module")
def site(full: Populated) -> Fleet:
    """The same site, for the shared fixtures."""
    return full.fleet


@contextmanager
def another(browser: Browser, watch: Watch, **options: str) -> Iterator[Page]:
    """A second browser: a profile that shares nothing with the first."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=watch.origin, **options)  # type: ignore[arg-type]
    try:
        yield watch.attach(context.new_page())
    finally:
        context.close()


def test_what_one_browser_does_another_sees_without_a_reload(
    visit: Visit, browser: Browser, watch: Watch, full: Populated
) -> None:
    upload_id = full.fleet.trigger("cellar-1", Path("/data/shared.csv"))
    with another(browser, watch) as other:
        other.goto(f"/#/uploads/{upload_id}")
        expect(other.locator(".subtitle")).to_contain_text("queued")
        expect(other.get_by_text("Live", exact=True)).to_be_visible()
        page = visit(f"/uploads/{upload_id}")
        page.get_by_role("button", name="Cancel…").click()
        page.get_by_role("button", name="Cancel the upload").click()
        expect(other.locator(".subtitle")).to_contain_text("cancelled")
        # And back: the second one requests it again, and the first one's list has it.
        page.get_by_role("navigation", name="Views").get_by_role("link", name="Uploads").click()
        rows = page.get_by_role("table", name="Uploads").get_by_role("link", name="/data/shared.csv")
        expect(rows).to_have_count(1)
        other.get_by_role("button", name="Retry").click()
        expect(rows).to_have_count(2)


def test_an_idle_page_asks_for_nothing(visit: Visit, full: Populated) -> None:
    """Only a fact can end the wait: a change that concerns the view is its first request."""
    page = visit("/clients")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    page.wait_for_load_state("load")
    table = page.get_by_role("table", name="Clients")
    expect(table.get_by_role("link", name="till-1")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    def silent() -> bool:
        asked.clear()
        # More than a usual interval of polling.
        page.wait_for_timeout(7_000)
        return not asked

    # On a busy machine a client of the fleet may be late and so be a change; a page that polls is never silent.
    assert came_true(silent, 60), asked
    with page.expect_request(lambda request: "/clients?" in request.url):
        upload_id = full.fleet.trigger("cellar-1", Path("/data/idle.csv"))
    assert full.fleet.post(f"/uploads/{upload_id}/cancel").is_success


@pytest.mark.parametrize(
    "view", ["clients", "uploads", "jobs", "schedules", "webhooks", "keys", "tokens", "audit", "fleet"]
)
def test_no_view_has_a_refresh_button(visit: Visit, full: Populated, view: str) -> None:
    page = visit(full.views[view])
    expect(page.get_by_role("button", name=re.compile("refresh|reload", re.IGNORECASE))).to_have_count(0)


def test_a_link_with_filters_shows_the_same_rows_in_another_browser(
    visit: Visit, browser: Browser, watch: Watch, full: Populated
) -> None:
    page = visit("/uploads")
    page.get_by_label("State", exact=True).select_option("completed")
    page.get_by_role("combobox", name="Client").fill("till-1")
    table = page.get_by_role("table", name="Uploads")
    expect(page).to_have_url(re.compile(r"client_id=till-1"))
    expect(table.get_by_role("link", name="till-2")).to_have_count(0)
    expect(table.get_by_role("link", name="till-1").first).to_be_visible()
    with another(browser, watch) as other:
        other.goto(page.url)
        expect(other.get_by_label("State", exact=True)).to_have_value("completed")
        theirs = other.get_by_role("table", name="Uploads").get_by_role("row")
        expect(theirs).to_have_count(table.get_by_role("row").count())
    table.get_by_role("link", name=FILE).first.click()
    expect(page.locator("h1")).to_have_text("file.bin")
    page.go_back()
    expect(page.get_by_label("State", exact=True)).to_have_value("completed")
    expect(page.get_by_role("combobox", name="Client")).to_have_value("till-1")


def shell(command: str, site: Fleet) -> str:
    """Run a copied command in a fresh shell of a person who has set where the control plane is."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": programs, "HOME": str(site.directory), "BACKHAUL_URL": site.site.server, "NO_PROXY": "*"}
    done = subprocess.run(
        ["/bin/sh", "-ec", command], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


VIEWS: Final = (
    "fleet",
    "clients",
    "client",
    "uploads",
    "upload",
    "jobs",
    "job",
    "schedules",
    "schedule",
    "webhooks",
    "webhook",
    "devices",
    "device",
    "keys",
    "tokens",
    "token",
    "audit",
    "health",
)


@pytest.mark.parametrize("view", VIEWS)
def test_what_a_view_copies_runs_in_a_shell_as_it_is(
    view: str, visit: Visit, context: BrowserContext, site: Fleet, full: Populated
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit(full.views[view])
    for label in ("curl", "backhaul command"):
        menu = page.locator("header.page details.copy")
        if menu.get_attribute("open") is None:
            menu.locator("summary").click()
        menu.get_by_role("button", name=f"Copy: {label}").click()
        expect(menu.get_by_text("Copied").first).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == menu.locator(".copyable").filter(has_text=label).locator("code").inner_text()
        told = shell(copied if label != "curl" else copied.replace("curl ", "curl --fail ", 1), site)
        assert told.strip(), copied
        if (
            view in {"client", "upload", "job", "schedule", "webhook", "device", "token"}
            and label == "backhaul command"
        ):
            assert full.views[view].rpartition("/")[2] in told


@pytest.mark.parametrize("kind", ["trigger", "job", "schedule"])
def test_what_a_form_copies_makes_what_the_form_would_make(
    kind: str, visit: Visit, site: Fleet, full: Populated
) -> None:
    """A client with a quotation mark in its path: the shell gets the text that was typed."""
    name = {"job": "Job id", "schedule": "Name"}
    made = {}
    for number, label in enumerate(("curl", "backhaul command")):
        page = visit(f"/new/{kind}?client=cellar-1&path=/data/it's {number}.csv")
        if kind in name:
            page.get_by_label(name[kind], exact=True).fill(f"copied-{kind}-{number}")
        page.locator("header.page details.copy summary").click()
        copied = page.locator(".copyable").filter(has_text=label).locator("code").inner_text()
        made[label] = shell(copied if label != "curl" else copied.replace("curl ", "curl --fail ", 1), site)
    if kind == "trigger":
        paths = {one["file_path"] for one in site.get("/uploads?client_id=cellar-1")["uploads"]}
        assert {"/data/it's 0.csv", "/data/it's 1.csv"} <= paths
    else:
        for number in range(2):
            shown = site.get(f"/{kind}s/copied-{kind}-{number}")
            spec = shown["spec"] if kind == "job" else shown["job"]
            assert spec["files"]["paths"] == [f"/data/it's {number}.csv"]


def test_an_instant_is_in_the_zone_of_the_reader_and_in_utc_on_hover(
    browser: Browser, watch: Watch, full: Populated
) -> None:
    at = full.fleet.get(f"/uploads/{full.completed}")["completed_at"]
    with another(browser, watch, timezone_id="Asia/Tokyo") as page:
        page.goto(f"/#/uploads/{full.completed}")
        shown = page.locator(f'time[datetime="{at}"]').first
        expect(shown).to_be_visible()
        local = page.evaluate("(at) => new Date(at).toLocaleTimeString('en-GB', {timeZone: 'Asia/Tokyo'})", at)
        expect(page.locator(f'time[datetime="{at}"]').filter(has_text=local).first).to_be_visible()
        assert f"{at[:10]} {at[11:19]} UTC" in str(shown.get_attribute("title"))
        page.get_by_role("button", name="Times: Asia/Tokyo").click()
        expect(page.locator(f'time[datetime="{at}"]').filter(has_text=f"{at[11:19]} UTC").first).to_be_visible()
        # The age of a thing is an instant too.
        assert " UTC" in str(page.locator(".subtitle time").get_attribute("title"))


@pytest.mark.parametrize(
    "view", [f"/uploads/{ID}", "/clients/nobody-here", "/jobs/none", "/schedules/none", f"/webhooks/{ID}"]
)
def test_what_is_not_there_leads_to_the_page_of_its_reason(visit: Visit, watch: Watch, site: Fleet, view: str) -> None:
    watch.expected.append("404|422")
    page = visit(view)
    link = page.get_by_role("alert").locator(f'a[href^="{REASONS}"]').first
    expect(link).to_be_visible()
    answer = httpx.get(f"{site.site.server}{link.get_attribute('href')}", headers={"Accept": "text/html"})
    assert answer.status_code == httpx.codes.OK, answer.text
    link.click()
    expect(page.locator("h1")).to_be_visible()
    assert REASONS in page.url


def test_why_an_upload_waits_leads_to_the_page_of_its_reason(visit: Visit, full: Populated) -> None:
    page = visit(full.views["upload"])
    page.locator(f'main a[href^="{REASONS}"]').first.click()
    expect(page.locator("h1")).to_contain_text("client_never_seen")
    page.go_back()
    expect(page.locator("h1")).to_have_text("report.csv")


def test_an_empty_list_has_a_first_act(visit: Visit) -> None:
    """With a filter that nothing matches, the act is to remove it."""
    for address in ("/clients?selector=nothing%3Dhere", "/uploads?client_id=nobody", "/jobs?state=aborted"):
        page = visit(address)
        empty = page.locator(".empty")
        expect(empty).to_be_visible()
        expect(empty.locator("a, button").first).to_be_visible()


@pytest.mark.parametrize(
    ("address", "label", "read"),
    [("/uploads", "Uploads", r"/uploads\?"), ("/clients", "Clients", r"/clients\?"), ("/jobs", "Jobs", r"/jobs\?")],
)
def test_rows_stay_when_the_next_read_of_them_fails(
    visit: Visit, watch: Watch, full: Populated, address: str, label: str, read: str
) -> None:
    """A view reads again after each change: a read that fails takes nothing away that was shown."""
    watch.expected.append("Failed to load|ERR_FAILED")
    page = visit(address)
    rows = page.get_by_role("table", name=label).locator("tbody tr")
    expect(rows.first).to_be_visible()
    page.route(re.compile(read), lambda route: route.abort())
    page.evaluate("import('/static/core/live.js').then((live) => live.stop() || live.start())")
    expect(page.get_by_role("alert").filter(has_text="The server does not answer")).to_be_visible()
    expect(rows.first).to_be_visible()


def test_a_control_plane_that_was_killed_and_started_again_is_followed_without_a_reload(
    visit: Visit, site: Fleet, watch: Watch, full: Populated
) -> None:
    """What was made meanwhile is in no event, and is shown all the same."""
    watch.expected.append(r"ERR_CONNECTION_REFUSED|ERR_INCOMPLETE|ERR_EMPTY|ERR_CONNECTION_RESET|Failed to load|503")
    page = visit("/uploads")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    page.evaluate("window.sameDocument = true")
    table = page.get_by_role("table", name="Uploads")
    expect(table.get_by_role("link", name=FILE).first).to_be_visible()
    site.site.plane.kill()
    expect(page.get_by_text("Not live", exact=True)).to_be_visible()
    banner = page.get_by_role("alert").filter(has_text="Not live since")
    expect(banner).to_contain_text("what is shown may be old")
    # What was shown is still there.
    expect(table.get_by_role("link", name=FILE).first).to_be_visible()
    plane = site.stack.enter_context(serve(site.site.directory, site.plane_settings))
    site.site = replace(site.site, plane=plane)
    site.until(site.ready, f"the control plane again: {plane.log_tail()}")
    site.trigger("cellar-1", Path("/data/meanwhile.csv"))
    expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=60_000)
    expect(banner).to_have_count(0)
    expect(table.get_by_role("link", name="/data/meanwhile.csv")).to_be_visible()
    # It follows as before.
    done = site.trigger("till-1", Path(FILE))
    expect(table.locator(f'a[href*="{done}"]').first).to_be_visible()
    assert page.evaluate("window.sameDocument") is True
