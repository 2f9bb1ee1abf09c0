"""The pages for a browser: they name every call, load nothing, and show nothing of the fleet."""

import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256

import httpx
import pytest

from tests.support.fake_services import SECRET, FakeServices, http_to, make_api

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def page(path: str, headers: Mapping[str, str] | None = None, **settings: str) -> httpx.Response:
    async with http_to(make_api(FakeServices(), **settings)) as http:
        return await http.get(path, headers=headers)


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_loads_nothing_and_its_policy_allows_its_style_only(path: str) -> None:
    answer = await page(path, BROWSER)
    assert answer.headers["content-type"].startswith("text/html")
    assert re.findall(r"<script|<img|<link|<iframe|<form|src=|style=|https?://|onload", answer.text) == []
    [style] = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in policy


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


async def test_the_first_page_names_paths_that_exist() -> None:
    known = (await page("/")).json()
    shown = re.findall(r'href="([^"]+)"', (await page("/", BROWSER)).text)
    assert list(known["paths"]) == shown
    assert [(await page(path)).status_code for path in shown] == [200] * len(shown)
