"""Clients and their files: find them, browse one, request files with clicks, act on many.

Rule: what a click did is compared with what REST shows afterwards.
"""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Shoot, Watch
from tests.browser.settled import fits
from tests.support.sites import Fleet

Visit = Callable[[str], Page]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the devices allow."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "logs [old]").mkdir()
    for number in range(3):
        (folder / "logs [old]" / f"app-{number}.log").write_bytes(bytes(1_000 + number))
    (folder / "report.csv").write_bytes(b"a;b\n")
    return folder


def uploads_of(site: Fleet, client_id: str) -> dict[str, str]:
    """The state of the newest upload of each path."""
    found = site.get(f"/uploads?client_id={client_id}")["uploads"]
    return {one["file_path"]: one["state"] for one in reversed(found)}


def test_two_files_of_a_device_are_requested_with_clicks(visit: Visit, site: Fleet, files: Path) -> None:
    site.attach("till-1", files / "report.csv", ALLOWED_ROOTS=str(files), LABELS="site=berlin")
    page = visit("/clients")
    page.get_by_role("link", name="till-1").click()
    expect(page.locator("h1")).to_have_text("till-1")
    page.get_by_role("button", name="logs [old]/").click()
    folder = files / "logs [old]"
    for number in (0, 2):
        page.get_by_label(f"Select {folder}/app-{number}.log").check()
    page.get_by_role("button", name="Request 2 files").click()
    expect(page.get_by_text("2 files requested")).to_be_visible()
    rows = page.get_by_role("table", name=f"Files in {folder}").get_by_role("row")
    # The view follows: nothing is clicked, and both become proven.
    expect(rows.filter(has_text="completed")).to_have_count(2, timeout=60_000)
    assert uploads_of(site, "till-1") == {f"{folder}/app-{number}.log": "completed" for number in (0, 2)}
    page.go_back()
    expect(page.get_by_role("button", name="logs [old]/")).to_be_visible()


def test_a_device_that_is_connected_and_does_not_answer_is_asked_again_by_a_click(
    visit: Visit, site: Fleet, files: Path, watch: Watch
) -> None:
    watch.expected.append(r"504")
    agent = site.attach("till-9", files / "report.csv", ALLOWED_ROOTS=str(files))
    page = visit("/clients/till-9")
    expect(page.get_by_text("As of")).to_be_visible()
    agent.send(signal.SIGSTOP)
    try:
        page.get_by_role("button", name="logs [old]/").click()
        expect(page.get_by_text("The device did not answer in time")).to_be_visible()
    finally:
        agent.send(signal.SIGCONT)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_label(f"Select {files}/logs [old]/app-0.log")).to_be_visible()


def test_a_device_that_is_away_shows_its_last_listing_and_a_request_waits(
    visit: Visit, site: Fleet, files: Path, watch: Watch
) -> None:
    watch.expected.append(r"504")
    agent = site.attach("till-2", files / "report.csv", ALLOWED_ROOTS=str(files))
    page = visit("/clients/till-2")
    expect(page.get_by_text("As of")).to_be_visible()
    agent.stop()
    expect(page.get_by_text("The client is offline. This is what it listed")).to_be_visible(timeout=60_000)
    page.get_by_role("button", name=f"Request {files}/report.csv").click()
    expect(page.get_by_text("it waits until the client connects")).to_be_visible()
    assert uploads_of(site, "till-2") == {f"{files}/report.csv": "queued"}
    # A folder that was never opened has no listing: the view waits for the device.
    page.get_by_role("button", name="logs [old]/").click()
    expect(page.get_by_text("The device is offline, and never listed this folder")).to_be_visible()
    site.attach("till-2", files / "report.csv", ALLOWED_ROOTS=str(files))
    expect(page.get_by_text("app-0.log")).to_be_visible(timeout=60_000)
    site.until(lambda: uploads_of(site, "till-2")[f"{files}/report.csv"] == "completed", "the waiting request is done")


def test_filters_stay_in_the_address(visit: Visit, site: Fleet, watch: Watch) -> None:
    watch.expected.append(r"422")
    httpx.post(f"{site.site.server}/clients", json=[{"client_id": "bar-1", "labels": {"site": "oslo"}}])
    page = visit("/clients")
    page.get_by_label("State", exact=True).select_option("never_seen")
    page.get_by_label("Labels", exact=True).fill("site=oslo")
    table = page.get_by_role("table", name="Clients")
    expect(table.get_by_role("row")).to_have_count(2)
    expect(page).to_have_url(re.compile(r"selector=site%3Doslo"))
    page.reload()
    expect(page.get_by_label("Labels", exact=True)).to_have_value("site=oslo")
    expect(page.get_by_label("State", exact=True)).to_have_value("never_seen")
    expect(table.get_by_role("row")).to_have_count(2)
    table.get_by_role("link", name="bar-1").click()
    expect(page.locator("h1")).to_have_text("bar-1")
    page.go_back()
    expect(page.get_by_label("Labels", exact=True)).to_have_value("site=oslo")
    # What is wrong with a selector stands below it, with a mark at the place.
    page.get_by_label("Labels", exact=True).fill("site=oslo,,x")
    expect(page.locator(".place")).to_contain_text("^")
    expect(page.get_by_text("wrong at position 10")).to_be_visible()


def test_an_act_on_all_that_match_needs_the_number_and_the_set_that_was_shown(
    visit: Visit, site: Fleet, watch: Watch
) -> None:
    watch.expected.append(r"409")
    many = [{"client_id": f"shop-{number:02}", "labels": {"ring": "late"}} for number in range(60)]
    httpx.post(f"{site.site.server}/clients", json=many)
    page = visit("/clients?selector=ring%3Dlate")
    expect(page.get_by_text("60 match")).to_be_visible()
    expect(page.get_by_text("The first 50 clients of 60 are shown")).to_be_visible()
    page.get_by_role("button", name="Set a label…").click()
    httpx.post(f"{site.site.server}/clients", json={"client_id": "shop-60", "labels": {"ring": "late"}})
    agree = page.get_by_role("button", name="Set a label 60")
    page.get_by_role("textbox", name="Label", exact=True).fill("wave=2")
    expect(agree).to_be_disabled()
    page.get_by_label("Type 60 to confirm").fill("60")
    agree.click()
    expect(page.get_by_text("You saw 60; 61 match now.")).to_be_visible()
    assert site.get("/clients?selector=wave")["count"] == 0
    page.get_by_role("button", name="Look again").click()
    expect(page.get_by_text("61 match")).to_be_visible()
    page.get_by_role("button", name="Set a label…").click()
    page.get_by_label("Type 61 to confirm").fill("61")
    page.get_by_role("button", name="Set a label 61").click()
    expect(page.get_by_text("61 of 61 clients changed")).to_be_visible()
    assert site.get("/clients?selector=wave%3D2")["count"] == 61


def test_a_file_is_requested_of_the_clients_that_are_ticked_and_cancelled_again(visit: Visit, site: Fleet) -> None:
    body = [{"client_id": f"cafe-{number}", "labels": {"kind": "cafe"}} for number in range(3)]
    httpx.post(f"{site.site.server}/clients", json=body)
    assert site.post("/trigger-download/cafe-0", {"file_path": "/data/report.csv"}).status_code == 200
    page = visit("/clients?selector=kind%3Dcafe")
    page.get_by_label("Select cafe-0").check()
    page.get_by_label("Select cafe-2").check()
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.get_by_role("button", name="Request a file…").click()
    page.get_by_label("Paths or patterns on the devices").fill("/data/*.csv")
    page.get_by_role("button", name="Request a file 2").click()
    expect(page.get_by_text("requests it of 2 clients")).to_be_visible()
    (job,) = site.get("/jobs")["jobs"]
    executions = site.get(f"/jobs/{job['job_id']}/executions")["executions"]
    assert [one["client_id"] for one in executions] == ["cafe-0", "cafe-2"]
    page.get_by_role("button", name="Clear the selection").click()
    expect(page.get_by_text("3 match")).to_be_visible()
    page.get_by_role("button", name="Cancel uploads…").click()
    page.get_by_role("button", name="Cancel uploads 3").click()
    expect(page.get_by_text("1 upload cancelled")).to_be_visible()
    assert uploads_of(site, "cafe-0") == {"/data/report.csv": "cancelled"}


def test_an_operator_sets_a_label_and_takes_it_off(visit: Visit, site: Fleet) -> None:
    httpx.post(f"{site.site.server}/clients", json=[{"client_id": "bar-2", "note": "opens in May"}])
    page = visit("/clients/bar-2")
    expect(page.get_by_text("opens in May")).to_be_visible()
    page.get_by_label("Set a label").fill("site=rome")
    page.get_by_role("button", name="Set", exact=True).click()
    page.get_by_role("button", name="Remove site").click()
    expect(page.get_by_role("button", name="Remove site")).to_have_count(0)
    assert site.get("/clients/bar-2")["set_labels"] == {}


def test_views_of_clients_fit_a_phone(visit: Visit, site: Fleet, files: Path, shoot: Shoot) -> None:
    if "till-1" not in site.agents:
        site.attach("till-1", files / "report.csv", ALLOWED_ROOTS=str(files))
    # The list of uploads has a row.
    site.trigger("till-1", files / "report.csv")
    for address in ("/clients", "/clients/till-1", "/uploads"):
        page = visit(address)
        expect(page.get_by_role("table").first).to_be_visible()
        shoot(f"view{address.replace('/', '-')}", 360, "dark")
        assert fits(page, 360)
        page.set_viewport_size({"width": 1280, "height": 900})


def test_a_device_with_bytes_a_day_shows_what_is_used_and_a_new_job_who_would_pass_it(
    visit: Visit, site: Fleet, files: Path, shoot: Shoot
) -> None:
    site.attach("till-cap", files / "report.csv", ALLOWED_ROOTS=str(files), BYTES_PER_DAY="1000")
    site.until(lambda: site.get("/clients/till-cap")["budget"] is not None, "the report", 60)
    page = visit("/clients/till-cap")
    card = page.locator("section", has_text="Budget of the device")
    expect(card.get_by_label("Day: 0 B of 1000 B")).to_be_visible()
    expect(card).to_contain_text("not metered")
    shoot("client-budget", 1280, "light")
    page = visit("/new/job")
    page.get_by_label("Clients, patterns and groups").fill("till-cap")
    page.get_by_label("Clients, patterns and groups").press("Enter")
    page.get_by_label("Paths").fill(f"{files}/*.csv")
    page.get_by_label("Paths").press("Enter")
    expect(page.get_by_text("1 client has a cap of its own")).to_be_visible()
