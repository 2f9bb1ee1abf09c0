"""Uploads: watch one move, cancel it, request it again, find the failed ones.

Rule: the device is slowed by a limit of the upload itself, so that there is something to watch.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.sites import MIB, Fleet

Visit = Callable[[str], Page]
SLOW = 1 * MIB


@pytest.fixture(scope="module")
def device(site: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a device that is connected, with a large file."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "big.bin").write_bytes(bytes(200 * MIB))
    (folder / "small.txt").write_bytes(b"small")
    site.attach("till-1", folder / "small.txt", ALLOWED_ROOTS=str(folder))
    return folder


def test_an_upload_is_watched_cancelled_and_requested_again(visit: Visit, site: Fleet, device: Path) -> None:
    upload_id = site.trigger("till-1", device / "big.bin", options={"max_bytes_per_second": SLOW})
    page = visit("/uploads")
    page.get_by_role("link", name=re.compile(r"big\.bin$")).click()
    expect(page.locator("h1")).to_have_text("big.bin")
    expect(page.get_by_text("in progress").first).to_be_visible()
    bar = page.get_by_role("progressbar")
    # It moves by itself; then the rate and the time left are known.
    expect(bar).not_to_have_attribute("aria-valuenow", "0")
    card = page.get_by_role("region", name="Progress")
    expect(card).to_contain_text(re.compile(r"Rate.*iB/s"))
    expect(card).to_contain_text(re.compile(r"Donein \d"))
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the upload").click()
    expect(page.locator(".subtitle")).to_contain_text("cancelled")
    expect(page.get_by_role("list").filter(has_text="requested")).to_contain_text("cancelled")
    assert site.get(f"/uploads/{upload_id}")["state"] == "cancelled"
    page.get_by_role("button", name="Retry").click()
    expect(page).not_to_have_url(re.compile(upload_id))
    expect(page.locator(".subtitle")).to_contain_text("in progress")
    again = next(one for one in site.get("/uploads")["uploads"] if one["upload_id"] != upload_id)
    assert again["file_path"] == str(device / "big.bin")
    assert site.post(f"/uploads/{again['upload_id']}/cancel").status_code == 200


def test_a_completed_upload_shows_its_proof_and_leads_to_the_object(visit: Visit, site: Fleet, device: Path) -> None:
    upload_id = site.trigger("till-1", device / "small.txt")
    page = visit(f"/uploads/{upload_id}")
    expect(page.locator(".subtitle")).to_contain_text("completed")
    proof = page.locator("section").filter(has=page.get_by_role("heading", name="Proof"))
    expect(proof).to_contain_text(re.compile(r"By (checksum|etag|accepted|size)"))
    with page.expect_request(re.compile(rf"/uploads/{upload_id}/url")) as asked, page.expect_popup() as opened:
        page.get_by_role("button", name="Open the object").click()
    response = asked.value.response()
    assert response is not None
    assert response.status == 200
    opened.value.close()


def test_the_failed_uploads_are_found_by_a_link_with_filters(visit: Visit, site: Fleet, device: Path) -> None:
    gone = site.trigger("till-1", device / "gone.bin")
    site.ended(gone)
    page = visit("/uploads?status=failed&ended_since=2020-01-01T00%3A00%3A00Z")
    table = page.get_by_role("table", name="Uploads")
    expect(table.get_by_role("row")).to_have_count(2)
    expect(table).to_contain_text("file_not_found")
    expect(table.get_by_role("link", name="file_not_found")).to_have_attribute("href", "/help/reasons/file_not_found")
    page.get_by_role("button", name="Remove the filter: status failed").click()
    expect(page).not_to_have_url(re.compile("status="))
    page.reload()
    expect(page.get_by_role("button", name=re.compile("ended since"))).to_be_visible()
