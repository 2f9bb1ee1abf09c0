"""The frame of the page: it starts, follows, navigates, and fits a phone."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Scheme, Shoot, Watch
from tests.browser.settled import fits, settles
from tests.support.sites import Fleet, serve

Visit = Callable[[str], Page]
NAMED: Final = (
    "",
    "plain-1",
    "$(touch run)",
    "`touch run`",
    "'; touch run; '",
    "a b\\n*?[x]{a,b}~!",
    "=ls",
    "\x1b[201~\ntouch run\n",
    "it's\\\n'; touch run; '",
    "\u202ekcab",
    "grün",
)
"""What a device may name a file, or a link may hold."""

SCHEMES: Final[tuple[Scheme, ...]] = ("light", "dark")
COUNT_STREAMS = """
window.away = true;
window.streams = [];
Object.defineProperty(document, "hidden", { get: () => window.away });
window.EventSource = class extends EventSource {
  constructor(url) { super(url); window.streams.push(this); }
};
window.show = (seen) => { window.away = !seen; dispatchEvent(new Event("visibilitychange")); };
"""
OPEN_STREAMS = "window.streams.filter((one) => one.readyState !== EventSource.CLOSED).length"


def test_the_page_opens_on_the_fleet_and_follows_what_changes(visit: Visit) -> None:
    page = visit("/")
    expect(page.locator("h1")).to_have_text("Fleet")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()


def test_an_address_without_a_view_leads_back_to_the_fleet(visit: Visit) -> None:
    page = visit("/nowhere/at/all")
    page.get_by_role("link", name="Go to the fleet").click()
    expect(page.locator("h1")).to_have_text("Fleet")
    # The heading has the focus: a screen reader goes on from there.
    expect(page.locator("h1")).to_be_focused()


def test_nothing_is_wider_than_a_phone(visit: Visit, shoot: Shoot) -> None:
    page = visit("/")
    assert shoot("fleet", 360).exists()
    assert fits(page, 360)


def test_a_screen_reader_and_weak_eyes_find_no_serious_fault(visit: Visit) -> None:
    page = visit("/health")
    expect(page.locator(".skeleton")).to_have_count(0)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in {"serious", "critical"}] == []


def test_the_navigation_works_with_keys_alone(visit: Visit) -> None:
    page = visit("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("link", name="Health", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Health")
    expect(page.locator("h1")).to_be_focused()
    expect(page.get_by_role("link", name="Health", exact=True)).to_have_attribute("aria-current", "page")


def test_a_zoom_of_two_hundred_percent_needs_no_second_direction(visit: Visit) -> None:
    """1,280 px at 200 % are 640 px for the page."""
    page = visit("/health")
    page.set_viewport_size({"width": 640, "height": 450})
    assert fits(page, 640)
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Fleet", exact=True).click()
    expect(page.locator("h1")).to_have_text("Fleet")
    expect(page.get_by_role("link", name="Clients", exact=True)).to_be_hidden()


def test_instants_are_shown_in_the_zone_that_is_chosen(visit: Visit) -> None:
    page = visit("/health")
    shown = page.locator("main time").first
    expect(shown).to_have_attribute("title", re.compile(r"UTC"))
    page.get_by_role("button", name=re.compile("^Times:")).click()
    expect(shown).to_contain_text("UTC")
    page.reload()
    expect(shown).to_contain_text("UTC")


def test_a_tab_that_is_not_seen_holds_no_connection(page: Page, visit: Visit) -> None:
    """Six tabs that were opened in the background would leave no connection for the one that is seen."""
    page.add_init_script(COUNT_STREAMS)
    visit("/clients")
    assert settles(lambda: page.evaluate(OPEN_STREAMS) == 0)
    page.evaluate("show(true)")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    assert settles(lambda: page.evaluate(OPEN_STREAMS) == 1)
    page.evaluate("show(false)")
    assert settles(lambda: page.evaluate(OPEN_STREAMS) == 0)
    with page.expect_response(re.compile("/clients")):
        page.evaluate("show(true)")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()


def test_a_copied_command_runs_nothing_that_a_device_or_a_link_named(
    visit: Visit, tmp_path: Path, watch: Watch
) -> None:
    watch.expected.append("422")
    page = visit("/clients/x;touch%20run")
    page.get_by_text("Copy as…").click()
    expect(page.get_by_text("backhaul status 'x;touch run'")).to_be_visible()
    watch.expected.append("404")
    visit("/uploads/-x")
    page.get_by_text("Copy as…").click()
    expect(page.get_by_text("backhaul upload show -- -x")).to_be_visible()
    made = """async () => (await import("/static/parts/copy.js")).backhaul(
        "url", {"--none": undefined, "--off": false, "--on": true, "-c": "-c", "-l": ["a b", "c"]}, "-x", "y")"""
    assert page.evaluate(made) == "backhaul url --on -c -c -l 'a b' -l c -- -x y"
    for word in NAMED:
        quoted = str(page.evaluate("async (word) => (await import('/static/parts/copy.js')).quoted(word)", word))
        assert quoted.isprintable(), "a terminal acts on no letter of it"
        for shell in ("bash", "sh"):
            ran = subprocess.run([shell, "-c", f"printf %s {quoted}"], cwd=tmp_path, capture_output=True, check=True)
            assert not (tmp_path / "run").exists(), (shell, quoted)
            if shell == "bash":
                assert ran.stdout.decode() == word


def test_a_lost_stream_shows_itself_and_all_is_read_again(
    site: Fleet, visit: Visit, shoot: Shoot, watch: Watch
) -> None:
    watch.expected.append("ERR_")
    page = visit("/")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    site.site.plane.stop()
    expect(page.get_by_text("Not live since")).to_be_visible()
    shoot("fleet-lost", 360)
    expect(page.locator("h1")).to_have_text("Fleet")
    plane = site.stack.enter_context(serve(site.site.directory, site.plane_settings))
    site.site = replace(site.site, plane=plane)
    expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Not live since")).to_be_hidden()
    httpx.post(f"{site.site.server}/clients", json={"client_id": "new-pi"}, timeout=60)
    httpx.post(f"{site.site.server}/trigger-download/new-pi", json={"file_path": "/data/a"}, timeout=60)
    expect(page.get_by_text("Client never seen")).to_be_visible()
