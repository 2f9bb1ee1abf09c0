"""Signing in and out: by a link with a code, by a token, and where one was."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from control_plane.api.auth import create_token
from tests.browser.conftest import Shoot, Watch
from tests.support.sites import Fleet, running_fleet

Visit = Callable[[str], Page]
SECRET = "a secret of at least thirty-two bytes"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A site that needs a token; it is ready before anyone signs in."""
    with running_fleet(tmp_path_factory.mktemp("site"), {"JWT_SECRET": SECRET}) as fleet:
        yield fleet


def token() -> str:
    return create_token(SECRET, "ana", 3_600)


def code(site: Fleet) -> str:
    answer = httpx.post(f"{site.site.server}/session/codes", headers={"Authorization": f"Bearer {token()}"})
    return str(answer.json()["code"])


def test_a_token_leads_back_to_where_one_was_and_signing_out_ends_it(visit: Visit, shoot: Shoot, watch: Watch) -> None:
    watch.expected.append("401")
    page = visit("/health")
    expect(page.locator("h1")).to_have_text("Sign in to Backhaul")
    for width in (360, 1600):
        shoot("signin", width, "light")
        shoot("signin", width, "dark")
    page.get_by_label("Token").fill("nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not valid")
    page.get_by_label("Token").fill(token())
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("h1")).to_have_text("Health")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    assert page.evaluate("document.cookie") == "", "no script can read the session"
    assert page.evaluate("Object.values(localStorage).concat(Object.values(sessionStorage)).join()").count(".") == 0
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("h1")).to_have_text("Sign in to Backhaul")
    page.goto("/#/")
    expect(page.locator("h1")).to_have_text("Sign in to Backhaul")


def test_a_link_with_a_code_signs_in_once_and_leaves_no_trace(page: Page, site: Fleet, watch: Watch) -> None:
    watch.expected.append("401")
    one = code(site)
    page.goto(f"/#code={one}")
    expect(page.locator("h1")).to_have_text("Fleet")
    assert one not in page.url
    page.reload()
    expect(page.locator("h1")).to_have_text("Fleet")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("h1")).to_have_text("Sign in to Backhaul")
    page.goto("about:blank")
    page.goto(f"/#code={one}")
    expect(page.get_by_role("alert")).to_contain_text("the code was used")


def test_a_page_whose_session_is_revoked_elsewhere_leads_to_the_sign_in(page: Page, site: Fleet, watch: Watch) -> None:
    watch.expected.append("401")
    page.goto(f"/#code={code(site)}")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    cookie = {one["name"]: one["value"] for one in page.context.cookies()}
    answer = httpx.delete(f"{site.site.server}/session", cookies=cookie, headers={"Origin": site.site.server})
    assert answer.status_code == httpx.codes.NO_CONTENT
    expect(page.locator("h1")).to_have_text("Sign in to Backhaul")
