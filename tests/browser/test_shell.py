"""The frame of the page: it starts, follows, navigates, and fits a phone."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import Shoot

Visit = Callable[[str], Page]


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
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
