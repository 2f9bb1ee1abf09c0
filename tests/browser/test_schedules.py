"""Schedules and webhooks on the page: ticks before there is a schedule, coverage that heals, a dead letter sent again.

Rule: what a person does is done with the page; the receiver and the devices are real.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Shoot
from tests.browser.devices import simulated
from tests.browser.settled import fits
from tests.support.sites import Fleet, running_fleet

Visit = Callable[[str], Page]
FILES: Final = {"paths": ["/simulated/*"]}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A site that may send webhooks to this machine, with the device `till-1`."""
    with (
        running_fleet(tmp_path_factory.mktemp("site"), {"WEBHOOK_NETWORKS": "127.0.0.0/8"}) as fleet,
        simulated(fleet, 1),
    ):
        yield fleet


def made(site: Fleet, schedule_id: str, clients: list[str], **members: Any) -> str:  # noqa: ANN401 - JSON
    """An hourly schedule over REST; its address on the page."""
    job = {"targets": {"clients": clients}, "files": FILES, "key": "{schedule}/{tick:%H}/{client_id}/{name}", **members}
    answer = site.post("/schedules", {"schedule_id": schedule_id, "every": "1h", "job": job})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    return f"/schedules/{schedule_id}"


def card(page: Page, name: str) -> Locator:
    """The part of the view with this heading."""
    return page.locator("section").filter(has=page.get_by_role("heading", name=name, exact=True))


def confirm(page: Page, act: str) -> None:
    """Agree to the question that is open."""
    page.get_by_role("dialog").get_by_role("button", name=act).click()


def test_the_next_ticks_are_shown_before_the_schedule_is_made(visit: Visit) -> None:
    """Sundays of March, 02:30 in Berlin: the last one does not exist, and the preview names it."""
    page = visit("/new/schedule")
    page.get_by_label("Name").fill("sundays")
    page.get_by_label("Cron", exact=True).fill("30 2 * 3 0")
    page.get_by_label("Zone").fill("Europe/Berlin")
    page.get_by_label("Clients, patterns and groups").fill("till-1 ")
    page.get_by_label("Clients, patterns and groups").press("Enter")
    page.get_by_label("Paths").fill("/simulated/*")
    page.get_by_label("Paths").press("Enter")
    expect(page.locator(".match")).to_have_text("1 client matches now")
    expect(page.locator(".check .ticks")).to_contain_text("does not exist on this day")
    page.get_by_role("button", name="Create the schedule").click()
    expect(page.locator("h1")).to_have_text("sundays")
    expect(card(page, "Next ticks")).to_contain_text("does not exist on this day")


def test_a_schedule_is_paused_skipped_resumed_and_run_at_once(visit: Visit, site: Fleet) -> None:
    page = visit(made(site, "steered", ["till-1"]))
    page.get_by_role("button", name="Pause…").click()
    page.get_by_role("dialog").get_by_label("Note").fill("stocktaking")
    confirm(page, "Pause")
    expect(page.locator("main")).to_contain_text("stocktaking")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("header.page .state")).to_have_text("active")
    page.get_by_role("button", name="Skip next").click()
    expect(card(page, "Next ticks").locator(".state")).to_have_text("skipped")
    page.get_by_role("button", name="Run now").click()
    expect(card(page, "Recent ticks")).to_contain_text("manual")
    card(page, "Recent ticks").get_by_role("link", name="steered.").first.click()
    expect(page.locator("header.page")).to_contain_text("outcome: all")


def test_a_missing_cell_is_seen_and_heals_once_its_client_connects_again(
    visit: Visit, site: Fleet, shoot: Shoot
) -> None:
    """A past tick is made up for; a client that cannot read its file has a missing cell, until it comes repaired."""
    with simulated(site, 1, "--failing", "1", name="late-{}"):
        page = visit(made(site, "covered", ["till-1", "late-1"]))
        page.get_by_role("button", name="Make up for past ticks…").click()
        midnight = re.sub(r"T.*", "T00:00:00Z", site.get("/schedules/covered")["created_at"])
        page.get_by_label("From").fill(midnight)
        page.get_by_label("To", exact=True).fill(midnight)
        confirm(page, "Backfill")
        coverage = page.get_by_role("table", name="Coverage")
        expect(coverage.get_by_role("button", name=re.compile(r"till-1, .*: proven"))).to_be_visible()
        missing = coverage.get_by_role("button", name=re.compile(r"late-1, .*: missing \(source unreadable\)"))
        missing.click()
        chosen = page.get_by_role("group", name="The chosen cell")
        expect(chosen).to_contain_text("heals by itself")
        shoot("cell", 360)
        assert fits(page, 360)
        page.get_by_label("Clients with a cell that is").select_option("missing")
        expect(coverage.get_by_role("row")).to_have_count(2)
        page.get_by_label("Clients with a cell that is").select_option("")
        expect(coverage.get_by_role("row")).to_have_count(3)
    with simulated(site, 1, name="late-{}"):
        healed = coverage.get_by_role("button", name=re.compile(r"late-1, .*: healed"))
        healed.click()
    chosen.get_by_role("link", name="Healing: covered.heal.").click()
    expect(page.locator("header.page")).to_contain_text("outcome: all")
    page.go_back()
    expect(healed).to_be_visible()
    shoot("schedule", 360, "dark")
    assert fits(page, 360)


@contextmanager
def receiver(answers: list[int]) -> Iterator[tuple[str, list[int]]]:
    """A server that answers each message with the last of `answers`; yields its URL and what it answered."""
    told: list[int] = []

    class Receive(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answers[-1])
            self.send_header("Content-Length", "0")
            self.end_headers()
            told.append(answers[-1])

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receive) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", told
        finally:
            server.shutdown()
            thread.join()


def test_a_webhook_shows_its_secret_once_and_a_dead_letter_is_sent_again(visit: Visit, site: Fleet) -> None:
    """A receiver that is gone has disabled it; a person enables it and sends the dead delivery again."""
    answers = [410]
    with receiver(answers) as (url, told):
        page = visit("/webhooks")
        page.get_by_role("button", name="Add the first webhook").click()
        page.get_by_role("textbox", name="URL").fill(url)
        page.get_by_label("Types").fill("job.state_changed")
        page.get_by_role("button", name="Create", exact=True).click()
        secret = page.get_by_role("status", name="The secret of the new webhook")
        expect(secret).to_contain_text("whsec_")
        page.get_by_role("link", name="Open the webhook").click()
        expect(page.locator("h1")).to_have_text(url)
        site.post("/jobs", {"job_id": "told", "targets": {"clients": ["till-1"]}, "files": FILES})
        deliveries = page.get_by_role("table", name="Deliveries")
        expect(deliveries.locator("tbody tr").filter(has_text="dead").first).to_be_visible()
        expect(page.locator("header.page .state")).to_have_text("disabled")
        answers.append(204)
        page.get_by_role("button", name="Enable").click()
        expect(page.locator("header.page .state")).to_have_text("enabled")
        page.get_by_label("State").select_option("dead")
        number = deliveries.locator("tbody tr").first.locator("td").first.inner_text().split()[0]
        deliveries.get_by_role("button", name="Replay").first.click()
        page.get_by_label("State").select_option("delivered")
        expect(deliveries.locator("tbody tr").filter(has_text=number).filter(has_text="delivered")).to_be_visible()
        assert told[-1] == 204
    page.get_by_role("navigation", name="Views").get_by_role("link", name="Webhooks").click()
    expect(page.get_by_role("table", name="Webhooks")).to_be_visible()
    expect(page.get_by_text("whsec_")).to_have_count(0)
