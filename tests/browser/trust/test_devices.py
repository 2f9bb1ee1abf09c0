"""Devices: one that asks is compared and approved, another key is looked at, a stolen one is revoked; batches."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from control_plane.adapters.database import SqlDatabase
from control_plane.domain.batches import Batch
from control_plane.domain.clients import Client
from control_plane.domain.devices import Device, DeviceState
from control_plane.services.devices.batches import settings_of
from control_plane.services.devices.service import NewDevice
from control_plane.services.ports.database import Records
from schemas.signing.canonical import fingerprint
from schemas.signing.ed25519 import Signer
from schemas.signing.enrolment import token_digest
from tests.browser.conftest import Scheme, Shoot, Watch
from tests.browser.settled import fits
from tests.support.devices import AskingDevice
from tests.support.signed_fleet import SignedFleet, entry_of
from tests.support.sites import Fleet, running_fleet

Visit = Callable[[str], Page]
SCHEMES: Final[tuple[Scheme, ...]] = ("light", "dark")
FORMER: Final = Signer(b"f" * 32).verifier.public_key
OTHER: Final = Signer(b"o" * 32).verifier.public_key


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignedFleet]:
    """A site with a root of trust, where devices may ask by a code."""
    with running_fleet(tmp_path_factory.mktemp("site"), {"ENROLL": "on"}) as fleet:
        yield SignedFleet(fleet)


@pytest.fixture(scope="module")
def site(signed: SignedFleet) -> Fleet:
    """The same site, for the shared fixtures."""
    return signed.fleet


def stored(site: Fleet, device: Device) -> None:
    """Put a device into the registry."""
    written(site, lambda records: records.devices.save(device))


def seen(site: Fleet, *clients: Client) -> None:
    """Put clients into the database, as their presence would."""
    written(site, lambda records: records.clients.save(clients))


def written(site: Fleet, work: Callable[[Records], None]) -> None:
    """Write to the database of the site. Playwright runs a loop in this thread."""

    async def save() -> None:
        database = SqlDatabase.open(site.plane_settings["DATABASE_URL"])
        await database.write(work)
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
    version = site.get("/keys")["version"]
    expect(page.locator(".subtitle")).to_contain_text(f"Devices obey version {version} of the keys")
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
    assert [one["user_code"] for one in site.get("/enrollments")["requests"]] == [asked["user_code"]]
    shoot("approve", 360, "dark")
    question.get_by_label("It shows exactly this").check()
    question.get_by_role("button", name="Approve the device").click()
    devices = page.get_by_role("table", name="Devices", exact=True)
    expect(devices.get_by_role("row").filter(has_text="kiosk-3")).to_contain_text("enrolled")
    expect(row).to_have_count(0)
    # The first poll of a code is never too early.
    answer = call(site, "/enroll/poll", device.poll(asked["device_code"])).json()
    bundle = device.open(answer["sealed"])
    assert (bundle.client_id, bundle.allowed_roots) == ("kiosk-3", ("/data", "/logs"))


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


def test_who_is_behind_the_published_keys_is_seen_and_the_keys_warn_of_their_end(
    visit: Visit, site: Fleet, signed: SignedFleet, shoot: Shoot
) -> None:
    """The list that is published here has a key that ends soon, one that ended, and one that was revoked."""
    stored(site, Device("till-5", DeviceState.ACTIVE, 1.0, "ana", Signer(b"5" * 32).verifier.public_key, pinned_at=1.0))
    stored(site, Device("till-6", DeviceState.ACTIVE, 1.0, "ana", Signer(b"6" * 32).verifier.public_key, pinned_at=1.0))
    own = site.get("/keys")["public_key"]
    soon, over = (datetime.now(UTC).replace(microsecond=0) + timedelta(days=days) for days in (40, -2))
    ending = msgspec.structs.replace(entry_of(own), expires=soon)
    ended = msgspec.structs.replace(entry_of(Signer(b"e" * 32).verifier.text, "ana", "cli-*"), expires=over)
    gone = Signer(b"g" * 32).verifier.kid
    signed.publish(ending, ended, revoked=(gone,), life=timedelta(days=300))
    latest = site.get("/keys")["version"]
    seen(
        site,
        Client(client_id="till-5", seen_at=1.0, keys_version=latest - 1),
        Client(client_id="till-6", seen_at=1.0, keys_version=latest),
    )
    page = visit("/devices")
    table = page.get_by_role("table", name="Devices", exact=True)
    expect(table.get_by_role("row").filter(has_text="till-5")).to_contain_text(f"behind: {latest} is published")
    expect(table.get_by_role("row").filter(has_text="till-6")).to_contain_text(f"version {latest}, the latest")
    for scheme in SCHEMES:
        shoot("devices", 1280, scheme)
        assert fits(page, 1280)
    shoot("devices", 360, "light")
    assert fits(page, 360)
    page.set_viewport_size({"width": 1280, "height": 900})
    link = page.get_by_role("link", name=f"Devices obey version {latest} of the keys")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Keys")
    warnings = page.get_by_role("alert", name="Warnings").get_by_role("listitem")
    expect(warnings).to_have_count(2)
    expect(warnings.first).to_contain_text("the key of ana")
    expect(warnings.last).to_contain_text("the key of control-plane")
    keys = page.get_by_role("table", name="Keys")
    expect(keys.get_by_role("row").filter(has_text="this control plane")).to_contain_text("soon")
    expect(keys.get_by_role("row").filter(has_text="cli-*")).to_contain_text("expired")
    expect(page.get_by_text(gone)).to_be_visible()
    expect(page.locator("dl.facts")).to_contain_text("then devices obey nobody")
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert serious(page) == []
        for width in (360, 1600):
            shoot("keys", width, scheme)
            assert fits(page, width)
    finding = site.get("/health/details")["findings"]
    assert len([one for one in finding if one["name"] == "keys" and not one["fine"]]) == 2


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
    expect(page.get_by_text("backhaul device rotate --out bundle.json till-9")).to_be_visible()
    page.get_by_role("button", name="Forget…").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Forget the device").click()
    expect(page.locator("h1")).to_have_text("Devices")
    expect(page.get_by_role("link", name="till-9", exact=True)).to_have_count(0)


def test_a_batch_is_made_with_the_keyboard_and_its_token_is_shown_once(
    visit: Visit, site: Fleet, shoot: Shoot, watch: Watch
) -> None:
    watch.expected.append("422")
    page = visit("/devices")
    page.get_by_role("button", name="Show batches").focus()
    page.keyboard.press("Enter")
    card = page.get_by_role("region", name="Batches: many devices of one image")
    card.get_by_role("button", name="New batch").focus()
    page.keyboard.press("Enter")
    form = page.get_by_role("form", name="New batch")
    form.get_by_label("Names").fill("kassa-{n:02}")
    form.get_by_label("How many devices").fill("2")
    form.get_by_label("For how long").fill("soon")
    form.get_by_label("Folders that may be uploaded").fill("/data\n/logs")
    form.get_by_role("button", name="Make the batch").click()
    expect(form).to_contain_text("expires_in")
    form.get_by_label("For how long").fill("12h")
    form.get_by_label("Labels").fill("berlin")
    page.keyboard.press("Enter")
    expect(form).to_contain_text("berlin is no label")
    shoot("batch-form", 390, "dark")
    assert fits(page, 390)
    form.get_by_label("Labels").fill("site=berlin")
    page.keyboard.press("Enter")
    secret = page.get_by_role("status", name="The token of the new batch")
    token = secret.locator("code").first.inner_text()
    batch = batch_of(site, "kassa-{n:02}")
    assert (batch["count"], batch["taken"], batch["auto"]) == (2, 0, False)
    kept = stored_batch(site, batch["batch_id"])
    assert kept.digest == token_digest(token)
    assert settings_of(kept, "kassa-01") == NewDevice("kassa-01", ("/data", "/logs"), labels={"site": "berlin"})
    expect(secret.get_by_role("button", name="Copy: Into a file")).to_be_visible()
    line = f"--url {site.site.server} --root-sha256 {site.get('/keys')['root_sha256']} --batch-token-file"
    expect(secret).to_contain_text(f"backhaul-agent enroll {line}")
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert serious(page) == []
        for width in (390, 1280):
            shoot("batches", width, scheme)
            assert fits(page, width)
    secret.get_by_role("button", name="I have stored it").click()
    expect(page.get_by_text(token)).to_have_count(0)


def test_a_device_of_a_batch_is_approved_under_the_name_of_its_batch_which_is_revoked(
    visit: Visit, site: Fleet, shoot: Shoot
) -> None:
    made = site.post("/batches", {"names": "booth-{n:02}", "count": 2, "expires_in": 3_600}).json()
    device = AskingDevice(b"c" * 32)
    asked = call(site, "/enroll", device.ask(made["token"])).json()
    page = visit("/devices?joining=yes&batches=yes")
    waiting = page.get_by_role("table", name="Devices that ask").get_by_role("row").filter(has_text=asked["user_code"])
    expect(waiting).to_contain_text("booth-01")
    shoot("joining-batch", 1280, "light")
    waiting.get_by_role("button", name="Approve…").click()
    question = page.get_by_role("dialog")
    expect(question.get_by_label("Name of the device")).to_have_value("booth-01")
    question.get_by_label("It shows exactly this").check()
    question.get_by_role("button", name="Approve the device").click()
    expect(waiting).to_have_count(0)
    assert site.get("/devices/booth-01")["fingerprint"] == device.fingerprint
    page.get_by_role("button", name="Read again").click()
    row = page.get_by_role("table", name="Batches").get_by_role("row").filter(has_text="booth-{n:02}")
    expect(row).to_contain_text("1 of 2")
    expect(row).to_contain_text("open")
    row.get_by_role("button", name="Revoke booth-{n:02}").focus()
    page.keyboard.press("Enter")
    question.get_by_label("Why").focus()
    page.keyboard.type("the image leaked")
    page.keyboard.press("Enter")
    expect(row).to_contain_text("revoked")
    expect(row.get_by_role("button")).to_have_count(0)
    assert batch_of(site, "booth-{n:02}")["revoked_at"] is not None
    (record,) = site.get(f"/audit?target=batch:{made['batch_id']}&act=batch.revoke")["records"]
    assert record["reason"] == "the image leaked"


def batch_of(site: Fleet, names: str) -> dict[str, Any]:
    """The batch with these names, as REST lists it."""
    (found,) = (one for one in site.get("/batches")["batches"] if one["names"] == names)
    return dict(found)


def stored_batch(site: Fleet, batch_id: str) -> Batch:
    """The batch as the database has it."""
    found: list[Batch] = []

    def work(records: Records) -> None:
        batch = records.batches.get(batch_id)
        assert batch is not None
        found.append(batch)

    written(site, work)
    return found[0]
