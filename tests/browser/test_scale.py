"""The page with 10,000 clients, of which 1,000 upload: what it reads, and how much of it is in the document.

Rule: counts and sizes, no times; times are rows of `make bench`.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Page, Response, expect

from benchmarks.rows import client_id, fill
from tests.support.sites import Fleet, running_fleet

Visit = Callable[[str], Page]
CLIENTS: Final = 10_000
UPLOADING: Final = 1_000
MOST_NODES: Final = 2_000
MOST_ROWS: Final = 50
MOST_SUGGESTED: Final = 200
"""Clients that a form reads for its suggestions."""

MOST_BYTES: Final = 150_000
"""Of one answer: a page of rows, far from a fleet."""

MOST_REQUESTS: Final = 12
"""To REST, for one view."""

BURST: Final = 40


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A control plane that starts on a database full of clients."""
    directory = tmp_path_factory.mktemp("site")
    folder = directory / "site" / "control-plane"
    folder.mkdir(parents=True)
    # Playwright runs a loop in this thread.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, fill(f"sqlite:///{folder / 'backhaul.db'}", CLIENTS, UPLOADING)).result()
    with running_fleet(directory) as fleet:
        yield fleet


class Answers:
    """What REST answered to a page: everything but its files and its streams."""

    def __init__(self, page: Page) -> None:
        self.all: list[Response] = []
        page.on("response", self._response)

    def _response(self, answer: Response) -> None:
        if "/static/" not in answer.url and "/events" not in answer.url:
            self.all.append(answer)

    def check(self) -> None:
        """No answer holds more than a page of a list."""
        assert 0 < len(self.all) <= MOST_REQUESTS, [one.url for one in self.all]
        for answer in self.all:
            body = answer.body()
            assert len(body) <= MOST_BYTES, answer.url
            if "json" in answer.headers.get("content-type", ""):
                lists = [value for value in answer.json().values() if isinstance(value, list)]
                assert all(len(rows) <= MOST_SUGGESTED for rows in lists), answer.url


def nodes(page: Page) -> int:
    """How many elements the document has."""
    return int(page.evaluate("document.querySelectorAll('*').length"))


def shown(page: Page, address: str, fact: str) -> Answers:
    """Open a view in a new document and wait until it shows this text."""
    answers = Answers(page)
    page.goto(f"/#{address}")
    expect(page.locator("main")).to_contain_text(fact)
    expect(page.locator("[aria-busy=true], .skeleton")).to_have_count(0)
    return answers


@pytest.mark.parametrize(
    ("address", "fact"),
    [
        ("/", "9,000 of 10,000 clients are online"),
        ("/clients", "The first 50 clients of 10,000 are shown"),
        ("/clients?state=offline", "The first 50 clients of 1,000 are shown"),
        ("/uploads", "The first 50 uploads are shown; there are more"),
        ("/uploads?reason_code=uploading", "The first 50 uploads are shown; there are more"),
        (f"/clients/{client_id(7)}", "video-000007.mp4"),
        ("/new/job?selector=ring%3Dearly&path=/data/*.mp4", "5,000 clients match"),
    ],
)
def test_a_view_reads_a_page_of_rows_and_not_the_fleet(address: str, fact: str, page: Page) -> None:
    answers = shown(page, address, fact)
    answers.check()
    assert nodes(page) <= MOST_NODES


def test_uploads_that_are_shown_are_followed_and_no_others(page: Page) -> None:
    followed: list[str] = []
    page.on("request", lambda request: followed.append(request.url) if "type=upload.progress" in request.url else None)
    with page.expect_request(lambda request: "type=upload.progress" in request.url):
        shown(page, "/uploads", "The first 50 uploads")
    assert followed[-1].count("upload=") == MOST_ROWS


def test_many_changes_cause_one_read_a_second_at_most(page: Page, site: Fleet) -> None:
    """A burst of changes of rows that are shown: the rows are read again, once for all of them."""
    shown(page, "/clients?state=offline", "The first 50 clients of 1,000")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    answers = Answers(page)
    began = time.monotonic()
    for number in range(BURST):
        site.trigger(client_id(CLIENTS - 1_000 + number), Path("/data/burst.csv"))
    expect(page.locator("main tbody tr").filter(has_text="burst.csv")).to_have_count(BURST)
    assert len(answers.all) <= time.monotonic() - began + 2
    answers.all = answers.all[:MOST_REQUESTS]
    answers.check()


def test_a_filter_that_is_typed_reads_only_what_matches(page: Page) -> None:
    shown(page, "/clients", "The first 50 clients of 10,000")
    answers = Answers(page)
    page.get_by_label("Labels", exact=True).fill("site=site-7")
    expect(page.locator(".bulk strong")).to_have_text("20 match")
    expect(page.get_by_role("table", name="Clients").get_by_role("row")).to_have_count(21)
    answers.check()
    assert nodes(page) <= MOST_NODES
