"""The fleet view: an empty site leads to a first upload with one click, and each number is a link to its rows."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PATIENCE, Shoot, Watch
from tests.browser.settled import fits
from tests.support.sites import Fleet

Visit = Callable[[str], Page]
WIDTHS = (360, 1600)
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the client may upload, with one file."""
    folder = tmp_path_factory.mktemp("device")
    (folder / "report.bin").write_bytes(b"x" * 300_000)
    return folder


def tile(page: Page, label: str) -> str:
    """What a tile shows."""
    return page.get_by_role("listitem").filter(has_text=label).locator("a.value").inner_text()


def test_an_empty_site_leads_to_its_first_upload(site: Fleet, visit: Visit, shoot: Shoot, folder: Path) -> None:
    page = visit("/")
    page.get_by_text("No client has connected yet").first.wait_for()
    shoot("fleet-empty", 360)
    site.attach("kitchen-pi", folder / "report.bin")
    # Nothing was clicked and nothing reloaded: the client is pushed.
    first = page.get_by_role("button", name="Upload from kitchen-pi")
    first.wait_for(timeout=PATIENCE)
    assert tile(page, "Online") == "1"
    shoot("fleet-first", 1600)
    first.click()
    page.wait_for_url("**/#/uploads/*")
    upload_id = page.url.rpartition("/")[2]
    assert site.ended(upload_id)["state"] == "completed"
    expect(page.get_by_text("completed").first).to_be_visible()


def test_each_number_is_a_link_to_exactly_its_rows(site: Fleet, visit: Visit, shoot: Shoot, folder: Path) -> None:
    good = folder / "report.bin"
    if "kitchen-pi" not in site.agents:
        site.attach("kitchen-pi", good)
    for _ in range(3):
        assert site.ended(site.trigger("kitchen-pi", good))["state"] == "completed"
    for name in ("missing.bin", "gone.bin"):
        assert site.ended(site.trigger("kitchen-pi", folder / name))["state"] in {"failed", "rejected"}
    site.post("/clients", {"client_id": "cellar-pi"})
    site.trigger("cellar-pi", good)
    page = visit("/")
    waits = page.get_by_role("link", name="1 uploads: client never seen")
    waits.wait_for()
    for width in WIDTHS:
        for scheme in SCHEMES:
            shoot("fleet", width, scheme)
            assert fits(page, width)
    page.set_viewport_size({"width": 1280, "height": 900})
    assert (tile(page, "Never seen"), tile(page, "Failed today")) == ("1", "2")
    page.get_by_role("listitem").filter(has_text="Failed today").locator("a.value").click()
    rows = page.locator("main tbody tr")
    expect(rows).to_have_count(2)
    page.go_back()
    waits.click()
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("cellar-pi")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_view_copies_itself_as_a_request_and_as_a_command(visit: Visit, shoot: Shoot, scheme: str) -> None:
    page = visit("/")
    page.get_by_text("Copy as…").click()
    shoot("fleet-copy", 360, scheme)
    expect(page.get_by_text("curl -sS").first).to_contain_text("/fleet?since=")
    expect(page.get_by_text("backhaul fleet show")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("backhaul fleet show")).to_be_hidden()


def test_a_page_that_stays_open_shows_the_numbers_of_the_new_day(page: Page, visit: Visit, watch: Watch) -> None:
    # The server's clock stays: it takes no instant of tomorrow.
    watch.expected.append("422")
    page.clock.install()
    with page.expect_request(re.compile(r"/fleet\?since=")) as first:
        visit("/")
    with page.expect_request(re.compile(r"/fleet\?since=")) as second:
        page.clock.fast_forward("26:00:00")
    assert since(second.value.url) > since(first.value.url)


def since(url: str) -> str:
    """RFC 3339 in UTC sorts as text."""
    return url.partition("since=")[2]
