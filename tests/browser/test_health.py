"""The health view: what works, and what does not with its remedy."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import Shoot
from tests.browser.settled import fits
from tests.support.sites import Fleet

Visit = Callable[[str], Page]


def test_it_shows_the_neighbours_the_findings_and_the_replicas(site: Fleet, visit: Visit, shoot: Shoot) -> None:
    page = visit("/health")
    checks = page.get_by_role("list", name="Neighbours").get_by_role("listitem")
    expect(checks).to_have_count(4)
    expect(page.get_by_text("this one", exact=True)).to_be_visible()
    expect(page.get_by_role("region", name="Findings").get_by_role("listitem").first).to_be_visible()
    for width in (360, 1600):
        for scheme in ("light", "dark"):
            shoot("health", width, scheme)
            assert fits(page, width)


def test_a_neighbour_that_is_away_is_a_finding_with_its_remedy(site: Fleet, visit: Visit, shoot: Shoot) -> None:
    page = visit("/health")
    site.site.broker.stop()
    site.until(lambda: site.get("/health/details")["checks"]["broker"] != "ok", "the broker's absence")
    page.get_by_role("button", name="Check again").click()
    expect(page.get_by_text("This control plane cannot work now")).to_be_visible()
    remedy = page.get_by_role("region", name="Findings").get_by_role("listitem").filter(has_text="Remedy").first
    expect(remedy).to_contain_text("MQTT_URL")
    shoot("health-away", 1600)
    site.site.broker.start()
    site.until(lambda: site.get("/health/details")["checks"]["broker"] == "ok", "the broker's return")
    page.get_by_role("button", name="Check again").click()
    expect(page.get_by_text("This control plane cannot work now")).to_have_count(0)
