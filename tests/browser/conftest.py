"""A real site, a real Chromium, and the checks that hold for every view.

Rule: a page that logs an error, asks another origin, or breaks its policy fails its test, whatever the test is about.
Playwright runs a loop in the thread of the tests: its fixtures end with their module, and no test here is async.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, expect, sync_playwright

from tests.support.sites import Fleet, running_fleet

PATIENCE: Final = 60_000
"""Milliseconds in which what a person waits for must be there."""

HERE: Final = Path(__file__).parent
SHOTS: Final = "BACKHAUL_SHOTS"
"""The environment's name of a folder that keeps the screenshots."""

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_VIOLATIONS: Final = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""

Scheme = Literal["light", "dark"]
Shoot = Callable[..., Path]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder drives a browser, and a slow machine may need its time."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Broker, object store and control plane, without clients: `site.attach(...)` starts a real agent."""
    with running_fleet(tmp_path_factory.mktemp("site")) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def driver() -> Iterator[Playwright]:
    """Playwright, for one module."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(driver: Playwright) -> Iterator[Browser]:
    """The system's Chromium; nothing is downloaded."""
    program = next(path for path in map(shutil.which, NAMES) if path is not None)
    browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
    yield browser
    browser.close()


class Watch:
    """What pages did that no view may do. `expected` are patterns of console errors that the test provokes."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.expected: list[str] = []

    def attach(self, page: Page) -> Page:
        """Watch a page from before its first request."""
        page.add_init_script(_VIOLATIONS)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(f"{error.name}: {error.message}\n{error.stack}"))
        page.on("request", lambda request: self._request(request.url))
        page.set_default_timeout(PATIENCE)
        return page

    def verdict(self) -> list[str]:
        """What is wrong: errors that the test did not expect, and requests to another origin."""
        told = [one for one in self.errors if not any(re.search(pattern, one) for pattern in self.expected)]
        return [*told, *(f"off-origin: {url}" for url in self.foreign)]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _request(self, url: str) -> None:
        if not url.startswith((f"{self.origin}/", "data:", "blob:")):
            self.foreign.append(url)


@pytest.fixture
def watch(site: Fleet) -> Iterator[Watch]:
    """Judges every page of the test at its end."""
    watch = Watch(site.site.server)
    yield watch
    assert watch.verdict() == []


@pytest.fixture
def context(browser: Browser, watch: Watch) -> Iterator[BrowserContext]:
    """A browser profile of its own."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=watch.origin, locale="en-GB")
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, watch: Watch) -> Page:
    """An empty tab, 1,280 px wide."""
    return watch.attach(context.new_page())


@pytest.fixture
def visit(page: Page) -> Callable[[str], Page]:
    """Open a view by its address, as `/clients?state=offline`, and wait for its title."""

    def visited(address: str = "/") -> Page:
        page.goto(f"/#{address}")
        page.locator("main h1").wait_for()
        return page

    return visited


@pytest.fixture
def shoot(page: Page, tmp_path: Path) -> Shoot:
    """Write a screenshot of the whole page: `shoot("fleet", 360, "dark")` returns its file."""

    def shot(name: str, width: int = 1280, scheme: Scheme = "light") -> Path:
        folder = Path(os.environ.get(SHOTS, tmp_path))
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        file = folder / f"{name}-{width}-{scheme}.png"
        page.screenshot(path=file, full_page=True, animations="disabled")
        return file

    return shot
