"""Devices: one that asks is compared and approved, another key is looked at, a stolen one is revoked."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from control_plane.adapters.database import SqlDatabase
from control_plane.domain.devices import Device, DeviceState
from schemas.signing.canonical import fingerprint
from schemas.signing.ed25519 import Signer
from schemas.signing.enrolment import Bundle
from tests.browser.conftest import Shoot
from tests.browser.settled import fits
from tests.support.devices import AskingDevice
from tests.support.patience import came_true
from tests.support.signed_fleet import SignedFleet
from tests.support.sites import Fleet, running_fleet

Visit = Callable[[str], Page]
FORMER: Final = Signer(b"f" * 32).verifier.public_key
OTHER: Final = Signer(b"o" * 32).verifier.public_key


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A site with a root of trust, where devices may ask by a code."""
    with running_fleet(tmp_path_factory.mktemp("site"), {"ENROLL": "on"}) as fleet:
        SignedFleet(fleet)
        yield fleet


def stored(site: Fleet, device: Device) -> None:
    """Put a device into the registry. Playwright runs a loop in this thread."""

    async def save() -> None:
        database = SqlDatabase.open(site.plane_settings["DATABASE_URL"])
        await database.write(lambda records: records.devices.save(device))
        await database.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, save()).result()


def call(site: Fleet, path: str, body: Any) -> httpx.Response:  # noqa: ANN401 - any message
    """What a device without an account sends."""
    return httpx.post(f"{site.site.server}{path}", json=msgspec.to_builtins(body), timeout=60)


def serious(page: Page) -> list[str]:
    """The serious findings of axe."""
    found = Axe().run(page).response["violations"]
    return [one["nodes"][0]["html"] for one in found if one["impact"] in {"serious", "critical"}]


def test_a_device_that_asks_is_compared_and_approved_and_gets_its_bundle(
    visit: Visit, site: Fleet, shoot: Shoot
) -> None:
    device = AskingDevice(b"a" * 32)
    asked = call(site, "/enroll", device.ask()).json()
    page = visit("/devices")
    expect(page.locator(".subtitle")).to_contain_text("Devices obey version 1 of the keys")
    page.get_by_role("button", name="Look for devices").click()
    row = page.get_by_role("table", name="Devices that ask").get_by_role("row").filter(has_text=asked["user_code"])
    expect(row).to_contain_text(device.fingerprint)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert serious(page) == []
    for width in (360, 1600):
        shoot("joining", width, "light")
        assert fits(page, width)
    page.set_viewport_size({"width": 1280, "height": 900})
    row.get_by_role("button", name="Approve…").focus()
    page.keyboard.press("Enter")
    question = page.get_by_role("dialog")
    expect(question).to_contain_text(device.fingerprint)
    question.get_by_label("Name of the device").fill("kiosk-3")
    question.get_by_label("Folders that may be uploaded").fill("/data\n/logs")
    question.get_by_role("button", name="Approve the device").click()
    expect(question).to_contain_text("Compare the fingerprint first")
    assert call(site, "/enroll/poll", device.poll(asked["device_code"])).status_code != httpx.codes.NOT_FOUND
    shoot("approve", 360, "dark")
    question.get_by_label("It shows exactly this").check()
    question.get_by_role("button", name="Approve the device").click()
    devices = page.get_by_role("table", name="Devices", exact=True)
    expect(devices.get_by_role("row").filter(has_text="kiosk-3")).to_contain_text("enrolled")
    expect(row).to_have_count(0)
    fetched: list[Bundle] = []

    def polled() -> bool:
        answer = call(site, "/enroll/poll", device.poll(asked["device_code"]))
        if answer.is_success and answer.json()["sealed"]:
            fetched.append(device.open(answer.json()["sealed"]))
        if not fetched:
            page.wait_for_timeout(6_000)
        return bool(fetched)

    assert came_true(polled, 60)
    assert (fetched[0].client_id, fetched[0].allowed_roots) == ("kiosk-3", ("/data", "/logs"))


def test_a_device_that_is_rejected_is_gone(visit: Visit, site: Fleet) -> None:
    asked = call(site, "/enroll", AskingDevice(b"b" * 32).ask()).json()
    page = visit("/devices?joining=yes")
    row = page.get_by_role("table", name="Devices that ask").get_by_role("row").filter(has_text=asked["user_code"])
    row.get_by_role("button", name="Reject…").click()
    page.get_by_role("button", name="Reject the device").click()
    expect(page.get_by_text("None asks now.")).to_be_visible()
    assert site.get("/enrollments")["requests"] == []


def test_another_key_is_an_alarm_until_it_is_accepted(visit: Visit, site: Fleet, shoot: Shoot) -> None:
    stored(
        site,
        Device("till-8", DeviceState.ACTIVE, 1.0, "ana", FORMER, other_key=OTHER, other_at=2.0, pinned_at=1.0),
    )
    page = visit("/devices")
    row = page.get_by_role("table", name="Devices", exact=True).get_by_role("row").filter(has_text="till-8")
    expect(row).to_contain_text("another key")
    row.get_by_role("link", name="till-8").click()
    alarm = page.get_by_role("alert", name="Another key")
    expect(alarm).to_contain_text(fingerprint(OTHER))
    assert serious(page) == []
    for width in (360, 1600):
        shoot("alarm", width, "light")
        assert fits(page, width)
    page.get_by_role("button", name="Accept the other key…").click()
    question = page.get_by_role("dialog")
    expect(question).to_contain_text(fingerprint(FORMER))
    question.get_by_label("Why").fill("its disk was replaced")
    question.get_by_role("button", name="It shows this: accept").click()
    expect(alarm).to_have_count(0)
    assert site.get("/devices/till-8")["fingerprint"] == fingerprint(OTHER)
    page.get_by_role("link", name="Who did what with it").click()
    expect(page.get_by_role("table", name="Records")).to_contain_text("its disk was replaced")


def test_a_stolen_device_is_revoked_and_forgotten_with_the_keyboard(visit: Visit, site: Fleet, shoot: Shoot) -> None:
    stored(site, Device("till-9", DeviceState.ACTIVE, 1.0, "ana", Signer(b"s" * 32).verifier.public_key, pinned_at=1.0))
    page = visit("/devices/till-9")
    page.get_by_role("button", name="Revoke…").focus()
    page.keyboard.press("Enter")
    question = page.get_by_role("dialog")
    question.get_by_label("Why").focus()
    page.keyboard.type("it was stolen")
    page.keyboard.press("Enter")
    expect(page.locator(".subtitle")).to_contain_text("revoked")
    shoot("device", 1280, "light")
    expect(page.get_by_text("backhaul device rotate till-9 --out bundle.json")).to_be_visible()
    page.get_by_role("button", name="Forget…").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Forget the device").click()
    expect(page.locator("h1")).to_have_text("Devices")
    expect(page.get_by_role("link", name="till-9", exact=True)).to_have_count(0)
