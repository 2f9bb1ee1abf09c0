"""What a browser gets: the page's files under their policy, and the list of calls that loads nothing."""

import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256

import httpx
import pytest

from control_plane.web import STATIC
from tests.support.fake_services import SECRET, FakeServices, http_to, make_api

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def page(path: str, headers: Mapping[str, str] | None = None, **settings: str) -> httpx.Response:
    async with http_to(make_api(FakeServices(), **settings)) as http:
        return await http.get(path, headers=headers)


async def test_the_list_of_calls_loads_nothing_and_its_policy_allows_its_style_only() -> None:
    answer = await page("/docs", BROWSER)
    assert answer.headers["content-type"].startswith("text/html")
    assert re.findall(r"<script|<img|<link|<iframe|<form|src=|style=|https?://|onload", answer.text) == []
    [style] = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in policy


FILES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", ["/", *(f"/static/{file}" for file in FILES)])
async def test_every_file_of_the_page_has_the_policy_without_exceptions(path: str) -> None:
    answer = await page(path, BROWSER)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    assert answer.headers["x-frame-options"] == "DENY"


async def test_a_browser_that_has_a_file_gets_no_second_copy() -> None:
    async with http_to(make_api(FakeServices())) as http:
        first = await http.get("/static/main.js")
        again = await http.get("/static/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert first.headers["content-type"].startswith("text/javascript")
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/static/nothing.js", "/static/../auth.py", "/static/%2e%2e/__init__.py", "/static/"])
async def test_a_path_that_is_no_file_of_the_page_is_not_found(path: str) -> None:
    assert (await page(path, BROWSER)).status_code in {404, 405}


@pytest.mark.parametrize("settings", [{}, {"JWT_SECRET": SECRET}])
async def test_the_documentation_names_every_call_and_answer(settings: dict[str, str]) -> None:
    text = (await page("/docs", BROWSER, **settings)).text
    document = make_api(FakeServices(), **settings).openapi()
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            section = text.partition(f'<section id="{call["operationId"]}">')[2].partition("</section>")[0]
            assert f"<code>{method.upper()} {path}</code>" in section
            assert all(f"<code>{code}</code>" in section for code in call["responses"])
            assert all(one["name"] in section for one in call.get("parameters", ()))
    assert ("Bearer TOKEN" in text) == ("JWT_SECRET" in settings)
    assert "file_path" in text.partition('id="triggerDownload"')[2].partition("</section>")[0]


async def test_a_program_gets_paths_that_exist() -> None:
    known = (await page("/")).json()
    assert [(await page(path)).status_code for path in known["paths"]] == [200] * len(known["paths"])
