"""Tokens: whose they are, what they may do, their end; and what a narrow token sees of it."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from control_plane.domain.access import Scope
from tests.browser.conftest import Shoot, Watch
from tests.browser.trust.signed_in import SETTINGS, bearer, sign_in, token_of
from tests.support.sites import Fleet, running_fleet


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A site that needs a token."""
    with running_fleet(tmp_path_factory.mktemp("site"), SETTINGS) as fleet:
        yield fleet


def use(site: Fleet, token: str) -> int:
    """Make one call with a token; answers its status."""
    return httpx.get(f"{site.site.server}/clients", headers=bearer(token), timeout=60).status_code


def test_a_token_is_found_and_revoked_with_the_keyboard_alone_and_the_reason_is_kept(
    page: Page, site: Fleet, shoot: Shoot
) -> None:
    lost = token_of("till-of-berlin", Scope.CLIENTS_READ, clients="site=berlin", token_id="1a2b3c4d5e6f7081")
    assert use(site, lost) == httpx.codes.OK
    sign_in(page, site, token_of("ana"), "/tokens")
    row = page.get_by_role("table", name="Tokens").get_by_role("row").filter(has_text="till-of-berlin")
    expect(row).to_contain_text("clients:read")
    expect(row).to_contain_text("site=berlin")
    expect(row).to_contain_text("valid")
    mine = page.get_by_role("table", name="Tokens").get_by_role("row").filter(has_text="this browser")
    expect(mine).to_contain_text("everything")
    expect(page.get_by_text(re.compile("^backhaul token create "))).to_be_visible()
    for width in (360, 1600):
        shoot("tokens", width, "light")
        shoot("tokens", width, "dark")
    row.get_by_role("link", name="1a2b3c4d5e6f7081").focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("1a2b3c4d5e6f7081")
    expect(page.locator("h1")).to_be_focused()
    page.get_by_role("button", name="Revoke…").focus()
    page.keyboard.press("Enter")
    question = page.get_by_role("dialog")
    expect(question).to_contain_text("refused within two seconds")
    expect(question).not_to_contain_text("you will be signed out")
    question.get_by_label("Why").focus()
    page.keyboard.type("the till was stolen, März")
    page.keyboard.press("Enter")
    expect(page.locator(".subtitle")).to_contain_text("revoked")
    expect(page.get_by_text("the till was stolen, März")).to_be_visible()
    expect(page.get_by_role("button", name="Revoke…")).to_have_count(0)
    site.until(lambda: use(site, lost) == httpx.codes.UNAUTHORIZED, "the token to be refused")
    shoot("token", 1280, "light")
    # Its records are one click away.
    page.get_by_role("link", name="Who did what with it").click()
    expect(page.get_by_role("table", name="Records")).to_contain_text("token.revoke")
    expect(page.get_by_role("table", name="Records")).to_contain_text("the till was stolen, März")


def test_a_token_that_was_never_used_is_revoked_by_its_id(page: Page, site: Fleet) -> None:
    """Also with an id that another issuer made, with a slash in it."""
    unseen = token_of("nobody-yet", token_id="tenant/7f3a.1")
    sign_in(page, site, token_of("ana"), "/tokens")
    page.get_by_label("Id of the token").fill("tenant/7f3a.1")
    page.get_by_role("button", name="Revoke…").click()
    page.get_by_role("button", name="Revoke the token").click()
    row = page.get_by_role("table", name="Tokens").get_by_role("row").filter(has_text="tenant/7f3a.1")
    expect(row).to_contain_text("never used")
    expect(row).to_contain_text("revoked")
    assert use(site, unseen) == httpx.codes.UNAUTHORIZED
    row.get_by_role("link", name="tenant/7f3a.1").click()
    expect(page.locator("h1")).to_have_text("tenant/7f3a.1")
    expect(page.locator(".subtitle")).to_contain_text("revoked before it was ever used")


def test_who_revokes_the_token_of_this_browser_is_warned_and_signed_out(page: Page, site: Fleet, watch: Watch) -> None:
    watch.expected.append("401")
    sign_in(page, site, token_of("eva", token_id="e0e1e2e3"), "/tokens/e0e1e2e3")
    page.get_by_role("button", name="Revoke…").click()
    expect(page.get_by_role("dialog")).to_contain_text("you will be signed out")
    page.get_by_role("button", name="Revoke the token").click()
    expect(page.locator("h1")).to_have_text("Sign in to Backhaul")


def test_a_use_of_another_token_shows_with_the_next_change(page: Page, site: Fleet) -> None:
    sign_in(page, site, token_of("ana"), "/tokens")
    late = token_of("came-later", Scope.UPLOADS_WRITE)
    body = {"file_path": "/data/a"}
    expect(page.get_by_text("came-later")).to_have_count(0)
    httpx.post(f"{site.site.server}/clients", json={"client_id": "cellar-1"}, headers=site.headers, timeout=60)
    answer = httpx.post(f"{site.site.server}/trigger-download/cellar-1", json=body, headers=bearer(late), timeout=60)
    assert answer.is_success, answer.text
    expect(page.get_by_text("came-later")).to_be_visible()


@pytest.mark.parametrize(
    ("address", "scope", "clients", "sentence"),
    [
        ("/tokens", Scope.CLIENTS_READ, None, "It needs the scope devices:admin"),
        ("/tokens/1a2b", Scope.CLIENTS_READ, None, "It needs the scope devices:admin"),
        ("/tokens", Scope.DEVICES_ADMIN, "site=berlin", "your token is for those of site=berlin only"),
        ("/audit", Scope.CLIENTS_READ, None, "It needs the scope audit:read"),
        ("/audit", Scope.AUDIT_READ, "site=berlin", "your token is for those of site=berlin only"),
    ],
)
def test_a_narrow_token_sees_a_sentence_and_the_server_is_not_asked(
    page: Page, site: Fleet, watch: Watch, address: str, scope: Scope, clients: str | None, sentence: str
) -> None:
    """A request would be denied, and each denial is a record."""
    watch.expected.append("403")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    sign_in(page, site, token_of("narrow", scope, clients=clients), address)
    expect(page.locator(".empty")).to_contain_text("Your token does not show")
    expect(page.locator(".empty")).to_contain_text(sentence)
    assert not [
        url for url in asked if re.search(r"/(tokens|audit)\b", url.replace("/static/", "")) and "views" not in url
    ]
    page.get_by_role("link", name="How rights are given").click()
    expect(page.locator("h1")).to_be_visible()


def test_who_joins_and_batches_are_nothing_for_a_token_that_may_not_decide(page: Page, site: Fleet) -> None:
    """Also by an address that opens both: a request would be denied."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    token = token_of("reader", Scope.CLIENTS_READ)
    sign_in(page, site, token, "/devices?joining=yes&batches=yes")
    expect(page.get_by_text("Who joins is decided with a token for all clients")).to_be_visible()
    expect(page.get_by_text("Batches are seen and made with a token for all clients")).to_be_visible()
    expect(page.get_by_role("button", name="Look for devices")).to_be_disabled()
    expect(page.get_by_role("button", name="Show batches")).to_be_disabled()
    expect(page.get_by_role("button", name="New batch")).to_have_count(0)
    assert not [url for url in asked if re.search(r"/(enrollments|batches)(\?|$)", url)]


def test_a_thing_has_no_link_to_records_for_who_may_not_read_them(
    browser: Browser, page: Page, site: Fleet, watch: Watch
) -> None:
    httpx.post(f"{site.site.server}/clients", json={"client_id": "cellar-2"}, headers=site.headers, timeout=60)
    upload_id = site.trigger("cellar-2", Path("/data/b"))
    sign_in(page, site, token_of("ana"), f"/uploads/{upload_id}")
    expect(page.get_by_role("link", name="Who did what with it")).to_be_visible()
    context = browser.new_context(base_url=watch.origin)
    other = watch.attach(context.new_page())
    rights = (Scope.UPLOADS_READ, Scope.CLIENTS_READ)
    sign_in(other, site, token_of("reader", *rights), f"/uploads/{upload_id}")
    expect(other.get_by_role("heading", name="Facts")).to_be_visible()
    expect(other.get_by_role("link", name="Who did what with it")).to_have_count(0)
    context.close()
