"""Receipts: who signed for an object, what the object store has now, and what differs."""

import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from control_plane.domain.access import Scope
from tests.browser.conftest import Scheme, Shoot
from tests.browser.settled import fits
from tests.browser.trust.signed_in import SETTINGS, sign_in, token_of
from tests.support.signed_fleet import SignedFleet
from tests.support.sites import Fleet, running_fleet

SCHEMES: Final[tuple[Scheme, ...]] = ("light", "dark")
SIGNED: Final = "till-1"
UNSIGNED: Final = "till-2"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the agents may read."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "sales.csv").write_bytes(b"turnover\n" * 10_000)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[Fleet]:
    """A site that needs a token, with a device that signs and one that does not."""
    with running_fleet(tmp_path_factory.mktemp("site"), SETTINGS) as fleet:
        # Playwright runs a loop in this thread.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: SignedFleet(fleet).enroll(SIGNED)).result()
        for client_id in (SIGNED, UNSIGNED):
            fleet.attach(client_id, ALLOWED_ROOTS=str(files))
        yield fleet


def completed(site: Fleet, client_id: str, path: Path, signer: str) -> str:
    """Upload a file; its receipt has the last signature that it gets."""
    upload_id = site.trigger(client_id, path)
    assert site.ended(upload_id)["state"] == "completed"
    site.until(lambda: bool(site.get(f"/uploads/{upload_id}")["receipt"] == signer), "the receipt")
    return upload_id


def card_of(page: Page, site: Fleet, upload_id: str, *scopes: Scope) -> Locator:
    """The card of the receipt on the view of an upload."""
    sign_in(page, site, token_of("ana", *scopes), f"/uploads/{upload_id}")
    return page.get_by_role("region", name="Receipt")


def test_who_signed_is_shown_and_the_object_is_verified_with_the_keyboard(
    page: Page, site: Fleet, files: Path, shoot: Shoot, tmp_path: Path
) -> None:
    upload_id = completed(site, SIGNED, files / "sales.csv", "device")
    receipt = site.get(f"/uploads/{upload_id}/receipt")
    card = card_of(page, site, upload_id)
    for key in receipt["keys"]:
        expect(card).to_contain_text(key["keyid"])
    expect(card).to_contain_text("the device")
    expect(card).to_contain_text("this control plane")
    statement = json.loads(b64decode(receipt["envelope"]["payload"]))
    (digest,) = statement["subject"][0]["digest"].values()
    expect(card).to_contain_text(digest)
    expect(card).to_contain_text(statement["predicate"]["command"])
    expect(card.locator(f'time[datetime="{statement["predicate"]["completed_at"]}"]')).to_be_visible()
    button = card.get_by_role("button", name="Verify the object")
    button.focus()
    page.keyboard.press("Enter")
    expect(card.get_by_role("status").filter(has_text="verified")).to_contain_text("is what the receipt says")
    assert site.get("/audit?act=upload.verify")["records"][0]["target"] == f"upload:{upload_id}"
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in {"serious", "critical"}] == []
        for width in (360, 1600):
            shoot("receipt", width, scheme)
            assert fits(page, width)
    page.set_viewport_size({"width": 1280, "height": 900})
    # What is downloaded is what REST answers, under the name that it has beside the object.
    with page.expect_download() as saved:
        card.get_by_role("link", name="Download the receipt").click()
    assert saved.value.suggested_filename == f"{receipt['s3_key'].rpartition('/')[2]}.receipt.json"
    assert json.loads(saved.value.path().read_bytes()) == receipt
    command = card.locator(".copyable code").inner_text()
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        "PATH": programs, "HOME": str(tmp_path), "BACKHAUL_URL": site.site.server, "NO_PROXY": "*",
        "BACKHAUL_TOKEN": token_of("ana"),
    }  # fmt: skip
    done = subprocess.run(
        ["/bin/sh", "-ec", command], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert upload_id in done.stdout


def test_without_the_signature_of_its_device_it_says_who_vouches(page: Page, site: Fleet, files: Path) -> None:
    upload_id = completed(site, UNSIGNED, files / "sales.csv", "control-plane")
    card = card_of(page, site, upload_id)
    expect(card).to_contain_text("Not by the device. The control plane alone vouches for it.")
    expect(card.get_by_role("link", name="Download the receipt")).to_be_visible()
    card.get_by_role("button", name="Verify the object").click()
    expect(card.get_by_role("list", name="What this does not show")).to_contain_text("not signed by the device")


def test_an_object_that_is_gone_is_named_with_what_differs(page: Page, site: Fleet, files: Path, shoot: Shoot) -> None:
    upload_id = completed(site, SIGNED, files / "sales.csv", "device")
    key = site.get(f"/uploads/{upload_id}")["s3_key"]
    stored = [
        path
        for path in (site.directory / "site" / "store").rglob("*")
        if path.is_file() and key.rpartition("/")[2] in path.name
    ]
    assert stored, key
    for path in stored:
        path.unlink()
    card = card_of(page, site, upload_id)
    card.get_by_role("button", name="Verify the object").click()
    expect(card.get_by_role("list", name="What differs")).to_contain_text("there is no object")
    expect(card.get_by_role("status").filter(has_text="mismatch")).to_contain_text("is not what was proven")
    for scheme in SCHEMES:
        shoot("receipt-differs", 1280, scheme)


def test_a_token_without_the_right_sees_the_receipt_and_cannot_verify(page: Page, site: Fleet, files: Path) -> None:
    upload_id = completed(site, SIGNED, files / "sales.csv", "device")
    card = card_of(page, site, upload_id, Scope.CLIENTS_READ, Scope.UPLOADS_READ)
    expect(card).to_contain_text("the device")
    expect(card.get_by_role("button", name="Verify the object")).to_be_disabled()
    expect(card).to_contain_text("It needs the scope objects:read")


def test_an_upload_that_is_not_completed_has_none(page: Page, site: Fleet, files: Path) -> None:
    upload_id = site.trigger(UNSIGNED, files / "gone.csv")
    site.ended(upload_id)
    sign_in(page, site, token_of("ana"), f"/uploads/{upload_id}")
    expect(page.get_by_role("heading", name="Proof")).to_be_visible()
    expect(page.get_by_role("region", name="Receipt")).to_have_count(0)


def test_a_receipt_that_is_not_made_yet_is_looked_for_again(page: Page, site: Fleet, files: Path) -> None:
    """No change tells of a signature: the answer of the server is held back here, as if the device were slow."""
    upload_id = completed(site, SIGNED, files / "sales.csv", "device")
    answer = {**site.get(f"/uploads/{upload_id}"), "receipt": "awaited"}
    pattern = re.compile(rf"/uploads/{upload_id}(\?|$)")
    page.route(pattern, lambda route: route.fulfill(status=httpx.codes.OK, json=answer))
    card = card_of(page, site, upload_id)
    expect(card).to_contain_text("It is not made yet")
    page.unroute(pattern)
    card.get_by_role("button", name="Look again").click()
    expect(card).to_contain_text("the device")
    expect(card.get_by_role("link", name="Download the receipt")).to_be_visible()
