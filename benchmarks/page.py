"""The operator's page with 10,000 clients, of which 1,000 upload: first view, filters, blocks of the main thread.

Rule: times are taken inside the browser: from the navigation or the last key until the rows are in the document. The
fleet is rows (`rows.py`) and no device answers; changes come over REST.
"""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.figures import Figure, Report, median, percentile
from benchmarks.rows import client_id, fill
from benchmarks.site import running_site

FIRST_VIEW: Final = 1_000
FILTER: Final = 200
BLOCK: Final = 50
"""Goals, in milliseconds; a browser reports a block of the main thread from 50 ms on (Long Tasks)."""

CHANGES: Final = 20
"""Changes a second while the page is open."""

FOLLOWED: Final = 10_000
"""Milliseconds for which the list of uploads is shown while the fleet changes."""

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_MEASURE: Final = """
window.blocks = [];
new PerformanceObserver((list) => { for (const one of list.getEntries()) window.blocks.push(one.duration); })
  .observe({ type: "longtask", buffered: true });
window.shown = (there) => new Promise((resolve) => {
  const look = () => {
    if (!there()) return false;
    resolve(performance.now());
    return true;
  };
  if (look()) return;
  const observer = new MutationObserver(() => look() && observer.disconnect());
  observer.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
});
window.first = window.shown(() => document.querySelector("main .tile, main tbody tr"));
"""
_FILTER: Final = """async ([label, text, matches]) => {
  const field = [...document.querySelectorAll("main label")].find((one) => one.textContent === label).control;
  const began = performance.now();
  Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value").set.call(field, text);
  field.dispatchEvent(new Event(field.tagName === "SELECT" ? "change" : "input", { bubbles: true }));
  const there = () => (document.querySelector(".pager")?.textContent || "").includes(` of ${matches} `);
  return await window.shown(there) - began;
}"""


def page(clients: int = 10_000, uploading: int = 1_000, rounds: int = 20) -> Report:
    """A new browser profile for each first view; filters by state and by labels, as typed."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "control-plane"
        folder.mkdir()
        asyncio.run(fill(f"sqlite:///{folder / 'backhaul.db'}", clients, uploading))
        with running_site(Path(directory)) as site, _browser() as browser:
            first, blocks = _first_views(browser, site.server, rounds)
            state, labels, more = _filters(browser, site.server, rounds, clients)
            followed = _follows(browser, site.server, clients)
    blocks += more + followed
    figures = [
        Figure(f"page: first view, {clients:,} clients, p95", percentile(first, 0.95), "ms", at_most=FIRST_VIEW),
        Figure(f"page: filter by state, {clients:,} clients, p95", percentile(state, 0.95), "ms", at_most=FILTER),
        Figure(f"page: filter by labels, {clients:,} clients, p95", percentile(labels, 0.95), "ms", at_most=FILTER),
        Figure("page: longest block of the main thread", max(blocks, default=0.0), "ms", at_most=BLOCK),
    ]
    details = {
        "median_ms": {"first": median(first), "state": median(state), "labels": median(labels)},
        "blocks_ms": blocks,
        "uploading": uploading,
    }
    return Report("page", figures, details)


@contextmanager
def _browser() -> Iterator[Browser]:
    program = next(path for path in map(shutil.which, _NAMES) if path is not None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def _tab(browser: Browser, server: str) -> Iterator[Page]:
    """A tab of a new profile, without anything in its cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=server)
    tab = context.new_page()
    tab.add_init_script(_MEASURE)
    yield tab
    context.close()


def _blocks(tab: Page) -> list[float]:
    return [float(one) for one in tab.evaluate("window.blocks")]


def _first_views(browser: Browser, server: str, rounds: int) -> tuple[list[float], list[float]]:
    times, blocks = [], []
    for _ in range(rounds):
        with _tab(browser, server) as tab:
            tab.goto("/")
            times.append(float(tab.evaluate("window.first")))
            tab.locator("#ends-title").wait_for()
            blocks += _blocks(tab)
    return times, blocks


def _filters(browser: Browser, server: str, rounds: int, clients: int) -> tuple[list[float], list[float], list[float]]:
    """Filter, and take it off again, untimed."""
    state, labels = [], []
    half, some = f"{clients // 2:,}", f"{clients // 10:,}"
    with _tab(browser, server) as tab:
        tab.goto("/#/clients")
        tab.evaluate("window.first")
        tab.locator(".pager").wait_for()
        for _ in range(rounds):
            state.append(float(tab.evaluate(_FILTER, ["State", "offline", some])))
            tab.evaluate(_FILTER, ["State", "", f"{clients:,}"])
            labels.append(float(tab.evaluate(_FILTER, ["Labels", "ring=early", half])))
            tab.evaluate(_FILTER, ["Labels", "", f"{clients:,}"])
        return state, labels, _blocks(tab)


def _follows(browser: Browser, server: str, clients: int) -> list[float]:
    """The blocks while the list of uploads follows a fleet that changes."""
    ended = threading.Event()
    changing = threading.Thread(target=_change, args=(server, clients - clients // 10, ended))
    with _tab(browser, server) as tab:
        tab.goto("/#/uploads")
        tab.evaluate("window.first")
        changing.start()
        tab.wait_for_timeout(FOLLOWED)
        ended.set()
        changing.join()
        return _blocks(tab)


def _change(server: str, number: int, ended: threading.Event) -> None:
    """Trigger an upload of one client after the other, from this number on: they are offline."""
    parts = urlsplit(server)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    while not ended.wait(1 / CHANGES):
        connection.request("POST", f"/trigger-download/{client_id(number)}")
        connection.getresponse().read()
        number += 1
    connection.close()
