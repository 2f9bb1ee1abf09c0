"""Browsers that are signed in with tokens of their own.

Rule: by a link with a code, as `backhaul page` prints it: no token is typed.
"""

from collections.abc import Callable
from typing import Final

import httpx
from playwright.sync_api import Page, expect

from control_plane.api.auth import create_token
from control_plane.domain.access import ALL, Principal, Scope
from tests.support.sites import Fleet

SECRET: Final = "a secret of at least thirty-two bytes"
SETTINGS: Final = {"JWT_SECRET": SECRET}
SignIn = Callable[..., Page]


def token_of(subject: str, *scopes: Scope, clients: str | None = None, token_id: str | None = None) -> str:
    """A token for an hour; without scopes it has all of them."""
    who = Principal(subject, frozenset(scopes) or ALL, clients, token_id)
    return create_token(SECRET, who, 3_600)


def bearer(token: str) -> dict[str, str]:
    """The header of a call with this token."""
    return {"Authorization": f"Bearer {token}"}


def sign_in(page: Page, site: Fleet, token: str, address: str) -> Page:
    """Sign the browser of a page in with a token, and open a view."""
    answer = httpx.post(f"{site.site.server}/session/codes", headers=bearer(token), timeout=60)
    page.goto(f"/#code={answer.json()['code']}")
    expect(page.locator("main h1")).to_have_text("Fleet")
    page.goto(f"/#{address}")
    expect(page.locator("main h1")).not_to_have_text("Fleet")
    expect(page.locator(".skeleton, [aria-busy=true]")).to_have_count(0)
    return page
