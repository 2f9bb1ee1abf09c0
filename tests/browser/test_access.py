"""Each view for each person: by keyboard, with a screen reader, on a phone, enlarged, light and dark, under the policy.

Rule: every view of the route table of main.js is examined; a view without an address in `populated` fails.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from control_plane.web import STATIC
from tests.browser.conftest import Scheme, Shoot, Watch
from tests.browser.populated import Populated, populated
from tests.browser.settled import settles
from tests.support.sites import Fleet

Visit = Callable[[str], Page]
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
ROUTES: Final = tuple(re.findall(r'\{ name: "(\w+)", pattern:', (STATIC / "main.js").read_text()))
SERIOUS: Final = {"serious", "critical"}
WIDTHS: Final = (360, 1600)
STEPS: Final = 60
"""Most presses of the Tab key until something is reached: a view has fewer stops than this before its first act."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Populated]:
    """A site with something in every view."""
    with populated(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(scope="module")
def site(full: Populated) -> Fleet:
    """The same site, for the shared fixtures."""
    return full.fleet


def open_view(page: Page, address: str) -> None:
    """Open a view in the same document, and wait until it read what it shows."""
    page.goto(f"/#{address}")
    page.locator("main h1").wait_for()
    expect(page.locator(".skeleton, [role=status]:text('Reading')")).to_have_count(0)
    expect(page.locator("[aria-busy=true]")).to_have_count(0)


def wider(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_every_view_has_an_address_here(full: Populated) -> None:
    assert set(ROUTES) == set(full.views)


@pytest.mark.parametrize("view", ROUTES)
def test_a_view_has_no_serious_finding_and_no_sideways_scroll(view: str, page: Page, full: Populated) -> None:
    """Examined in both schemes; 360, 640 (1,280 px at 200 % zoom) and 1,600 px wide."""
    open_view(page, full.views[view])
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        serious = [
            f"{one['id']}: {node['html']} {node['failureSummary']}"
            for one in found
            if one["impact"] in SERIOUS
            for node in one["nodes"]
        ]
        assert serious == [], f"{view}, {scheme}"
    for width in (*WIDTHS, 640):
        page.set_viewport_size({"width": width, "height": 800 if width != 640 else 450})
        assert wider(page) <= 0, f"{view} at {width} px"


def test_at_200_percent_the_page_is_read_without_scrolling_sideways(
    browser: Browser, watch: Watch, full: Populated
) -> None:
    """A browser's zoom of 200 % is half the width at twice the pixels; all text and all acts are there."""
    context = browser.new_context(
        viewport={"width": 640, "height": 450}, device_scale_factor=2, base_url=watch.origin, reduced_motion="reduce"
    )
    page = watch.attach(context.new_page())
    open_view(page, full.views["upload"])
    assert settles(lambda: wider(page) <= 0)
    page.get_by_role("button", name="Menu").click()
    expect(page.get_by_role("navigation", name="Views").get_by_role("link", name="Health")).to_be_visible()
    # Only the place of what is still read moves: one is put in, and moves for those who want it to.
    page.evaluate(
        """() => document.querySelector("main")
            .insertAdjacentHTML("beforeend", '<div class="skeleton"><div></div></div>')"""
    )
    moving = "document.getAnimations().filter((one) => one.playState === 'running').length"
    assert settles(lambda: page.evaluate(moving) == 0)
    page.emulate_media(reduced_motion="no-preference")
    assert settles(lambda: page.evaluate(moving) == 1)
    context.close()


def focused(page: Page) -> str:
    """What has the focus: its role or tag, and its name."""
    return str(
        page.evaluate(
            """() => { const one = document.activeElement;
            return `${one.tagName} ${one.getAttribute("aria-label") || one.innerText || one.value || ""}`.trim(); }"""
        )
    )


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the thing with this name has the focus, which must be visible at each stop."""
    seen = []
    for _ in range(STEPS):
        page.keyboard.press("Tab")
        seen.append(focused(page))
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none", f"the focus is not visible on {seen[-1]}"
        if re.search(name, seen[-1]):
            return
    pytest.fail(f"no Tab leads to {name}: {seen}")


def test_an_upload_is_requested_and_cancelled_with_the_keyboard_alone(visit: Visit, full: Populated) -> None:
    page = visit("/clients/cellar-1")
    tab_to(page, "^A New upload$")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("New upload")
    # A navigation leads to the heading: Tab goes on from there.
    expect(page.locator("h1")).to_be_focused()
    path = page.get_by_label("File", exact=True)
    for _ in range(STEPS):
        if path.evaluate("(one) => one === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(path).to_be_focused()
    page.keyboard.type("/data/by-keyboard.csv")
    tab_to(page, "^BUTTON Request the upload$")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("by-keyboard.csv")
    expect(page.locator("h1")).to_be_focused()
    tab_to(page, "^BUTTON Cancel…$")
    page.keyboard.press("Enter")
    question = page.get_by_role("dialog")
    expect(question).to_be_visible()
    page.keyboard.press("Escape")
    expect(question).to_have_count(0)
    expect(page.get_by_role("button", name="Cancel…")).to_be_focused()
    page.keyboard.press("Enter")
    expect(question).to_be_visible()
    tab_to(page, "^BUTTON Cancel the upload$")
    page.keyboard.press("Enter")
    expect(page.locator(".subtitle")).to_contain_text("cancelled")


def test_a_navigation_begins_at_the_top_of_the_view(visit: Visit, full: Populated) -> None:
    page = visit(full.views["schedule"])
    page.set_viewport_size({"width": 1280, "height": 320})
    expect(page.get_by_role("heading", name="What each tick requests")).to_be_visible()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    assert page.evaluate("scrollY") > 0
    page.get_by_role("navigation", name="Views").get_by_role("link", name="Health").click()
    expect(page.locator("h1")).to_have_text("Health")
    assert settles(lambda: page.evaluate("scrollY") == 0)


def test_a_question_keeps_the_focus_until_it_is_answered(visit: Visit) -> None:
    page = visit("/clients/cellar-1")
    page.get_by_role("button", name="Forget…").click()
    question = page.get_by_role("dialog")
    expect(question).to_be_visible()
    behind = (
        "document.activeElement !== document.body && !document.querySelector('dialog').contains(document.activeElement)"
    )
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate(behind) is False
    page.keyboard.press("Escape")
    expect(question).to_have_count(0)
    expect(page.locator("h1")).to_have_text("cellar-1")


@pytest.mark.parametrize("view", ["fleet", "clients", "job", "schedule", "new"])
def test_the_tab_key_passes_through_a_view_and_leaves_it(view: str, visit: Visit, full: Populated) -> None:
    """No stop holds the focus: it comes round to the first link, which skips the navigation."""
    page = visit(full.views[view])
    page.locator("main").wait_for()
    page.keyboard.press("Tab")
    assert "Skip to the content" in focused(page)
    stops = 0
    while stops < 250:
        page.keyboard.press("Tab")
        stops += 1
        if page.evaluate("document.activeElement === document.body") or "Skip to the content" in focused(page):
            break
    assert 10 < stops < 250, f"{stops} stops"
    assert (
        page.evaluate('document.querySelectorAll(\'[tabindex]:not([tabindex="0"]):not([tabindex="-1"])\').length') == 0
    )
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("main#content")).to_be_focused()


def test_every_file_of_the_page_has_exactly_its_policy(
    site: Fleet, visit: Visit, watch: Watch, full: Populated
) -> None:
    page = visit("/")
    policies: dict[str, str | None] = {}
    page.on(
        "response",
        lambda answer: (
            policies.update({answer.url: answer.headers.get("content-security-policy")})
            if "/static/" in answer.url
            else None
        ),
    )
    page.reload()
    for address in full.views.values():
        open_view(page, address)
    assert len(policies) > 40
    assert set(policies.values()) == {POLICY}
    html = httpx.get(f"{site.site.server}/", headers={"Accept": "text/html"})
    assert html.headers["content-security-policy"] == POLICY
    assert re.search(r"<style|<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", html.text) is None
    # The policy is in force: what it does not name is refused by the browser.
    watch.expected.append("(?i)policy")
    refused = page.evaluate(
        """() => new Promise((done) => {
            addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective), {once: true});
            const one = document.createElement("script");
            one.textContent = "window.injected = true";
            document.head.append(one);
        })"""
    )
    assert (refused, page.evaluate("window.injected")) == ("script-src-elem", None)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_whole_page_follows_the_scheme_of_the_system(visit: Visit, shoot: Shoot, scheme: Scheme) -> None:
    page = visit("/clients")
    shoot("scheme", 1280, scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(re.findall(r"\d+", ground)[0])
    assert (red > 200) is (scheme == "light")
