"""The audit: find a record, open it, and come to it from the thing that it is about."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from control_plane.domain.access import Scope
from tests.browser.conftest import Scheme, Shoot
from tests.browser.settled import fits
from tests.browser.trust.signed_in import SETTINGS, bearer, sign_in, token_of
from tests.support.sites import Fleet, running_fleet

MANY: Final = 60
SCHEMES: Final[tuple[Scheme, ...]] = ("light", "dark")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A site that needs a token, where something was done and something was denied."""
    with running_fleet(tmp_path_factory.mktemp("site"), SETTINGS) as fleet:
        with httpx.Client(base_url=fleet.site.server, headers=bearer(token_of("bob")), timeout=60) as bob:
            for name in ("cellar-1", "cellar-2"):
                assert bob.post("/clients", json={"client_id": name}).is_success
            for number in range(MANY):
                assert bob.patch("/clients/cellar-2/labels", json={"ring": str(number)}).is_success
            why = {"Backhaul-Reason": "ticket%204711"}
            assert bob.post("/trigger-download/cellar-1", json={"file_path": "/data/a"}, headers=why).is_success
        narrow = bearer(token_of("mallory", Scope.CLIENTS_READ))
        refused = httpx.get(f"{fleet.site.server}/uploads", headers=narrow, timeout=60)
        assert refused.status_code == httpx.codes.FORBIDDEN
        fleet.until(lambda: bool(fleet.get("/audit?outcome=denied")["records"]), "the denial to be recorded")
        yield fleet


def test_a_record_is_found_by_its_filters_and_opened_with_the_keyboard(page: Page, site: Fleet, shoot: Shoot) -> None:
    sign_in(page, site, token_of("ana"), "/audit")
    table = page.get_by_role("table", name="Records")
    page.get_by_label("Who", exact=True).fill("bob")
    page.get_by_label("Act", exact=True).select_option("upload.trigger")
    expect(page).to_have_url(re.compile(r"subject=bob&act=upload\.trigger|act=upload\.trigger&subject=bob"))
    expect(table.get_by_role("row")).to_have_count(2)
    expect(table).to_contain_text("ticket 4711")
    opener = table.get_by_role("button", name=re.compile("^Record "))
    expect(opener).to_have_attribute("aria-expanded", "false")
    opener.focus()
    page.keyboard.press("Enter")
    expect(opener).to_have_attribute("aria-expanded", "true")
    expect(opener).to_be_focused()
    opened = table.locator("tr.opened")
    record = site.get("/audit?act=upload.trigger")["records"][0]
    for text in (record["hash"], record["previous"], record["token_id"], "127.0.0.1", "/data/a", record["writer"]):
        expect(opened).to_contain_text(text)
    assert json.loads(opened.get_by_label("Detail of the record").inner_text()) == record["detail"]
    # An opened record is in the address, and fits every reader.
    page.reload()
    expect(opened).to_contain_text(record["hash"])
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in {"serious", "critical"}] == []
        for width in (360, 1600):
            shoot("record", width, scheme)
            assert fits(page, width)
    page.set_viewport_size({"width": 1280, "height": 900})
    opened.get_by_role("link", name=record["target"]).click()
    expect(page.locator("h1")).to_have_text("a")
    page.go_back()
    expect(opened).to_contain_text(record["hash"])
    opener.click()
    expect(opened).to_have_count(0)
    expect(page).not_to_have_url(re.compile("record="))


def test_a_denied_request_is_seen_with_who_made_it(page: Page, site: Fleet) -> None:
    sign_in(page, site, token_of("ana"), "/audit?outcome=denied")
    row = page.get_by_role("table", name="Records").get_by_role("row").filter(has_text="mallory")
    expect(row).to_contain_text("GET /uploads")
    expect(row).to_contain_text("denied")
    row.get_by_role("link", name="mallory").click()
    expect(page.get_by_label("Who", exact=True)).to_have_value("mallory")
    expect(page.get_by_label("Outcome", exact=True)).to_have_value("")


def test_a_long_list_says_that_it_is_cut_and_leads_on(page: Page, site: Fleet, shoot: Shoot) -> None:
    sign_in(page, site, token_of("ana"), "/audit?subject=bob")
    table = page.get_by_role("table", name="Records")
    expect(table.locator("tbody tr")).to_have_count(50)
    for width in (360, 1600):
        shoot("audit", width, "light")
        shoot("audit", width, "dark")
    page.set_viewport_size({"width": 1280, "height": 900})
    expect(page.get_by_text("The first 50 records are shown; there are more.")).to_be_visible()
    page.get_by_role("link", name="Next page").click()
    expect(table.locator("tbody tr")).to_have_count(MANY + 3 - 50)
    # The oldest act of all.
    expect(table.locator("tbody tr").last).to_contain_text("client.expect")
    # A filter begins at its first page.
    page.get_by_label("Act", exact=True).select_option("client.expect")
    expect(page).not_to_have_url(re.compile("cursor="))
    expect(table.locator("tbody tr")).to_have_count(2)


def test_the_state_of_the_checkpoints_is_shown(page: Page, site: Fleet, shoot: Shoot) -> None:
    site.until(lambda: site.get("/audit")["checkpoint"] is not None, "the first checkpoint")
    sign_in(page, site, token_of("ana"), "/audit?act=client.expect")
    check = page.locator("section").filter(has=page.get_by_role("heading", name="Check that nothing was changed"))
    last = site.get("/audit")["checkpoint"]
    expect(check).to_contain_text(re.compile(r"up to record \d+ of the chain"))
    expect(check).to_contain_text(last["writer"].partition("-")[0])
    expect(check).to_contain_text("AUDIT_BUCKET")
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in {"serious", "critical"}] == []
        for width in (360, 1280):
            shoot("checkpoints", width, scheme)
            assert fits(page, width)


def test_an_act_shows_without_a_reload(page: Page, site: Fleet) -> None:
    sign_in(page, site, token_of("ana"), "/audit?act=upload.trigger&client_id=cellar-2")
    expect(page.locator(".empty")).to_contain_text("No record matches")
    site.trigger("cellar-2", Path("/data/pushed.csv"))
    expect(page.get_by_role("table", name="Records").locator("tbody tr")).to_have_count(1)


@pytest.mark.parametrize("kind", ["upload", "job", "client", "schedule"])
def test_a_thing_leads_to_its_records(page: Page, site: Fleet, kind: str) -> None:
    job = {"targets": {"clients": ["cellar-1"]}, "files": {"paths": ["/data/*"]}}
    filtered = f"target={kind}:"
    if kind == "upload":
        address, act = f"/uploads/{site.trigger('cellar-1', Path('/data/linked'))}", "upload.trigger"
    elif kind == "job":
        assert site.post("/jobs", {"job_id": "linked", **job}).is_success
        address, act = "/jobs/linked", "job.create"
    elif kind == "schedule":
        assert site.post("/schedules", {"schedule_id": "linked", "every": "1h", "job": job}).is_success
        address, act = "/schedules/linked", "schedule.create"
    else:
        address, act, filtered = "/clients/cellar-2", "client.label", "client_id=cellar-2"
    sign_in(page, site, token_of("ana"), address)
    page.get_by_role("link", name="Who did what with it").click()
    expect(page.locator("h1")).to_have_text("Audit")
    expect(page).to_have_url(re.compile(filtered))
    expect(page.get_by_role("table", name="Records")).to_contain_text(act)
