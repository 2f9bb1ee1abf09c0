"""`/help`: every document is a page, every link of a page leads somewhere, and every code has a page.

Rule: the pages are fetched as a browser does; the package is built, and unpacked into an empty folder.
"""

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Final

import httpx
import pytest

from control_plane import web
from control_plane.api.auth import OPEN, OPEN_BELOW
from control_plane.domain.explanations.table import EXPLANATIONS
from control_plane.help.library import address_of, addresses, documents, resolved
from control_plane.help.render import rendered
from control_plane.help.search import search
from tests.docs.citations import anchors
from tests.support.fake_services import FakeServices, http_to, make_api

ROOT: Final = Path(__file__).parents[2]
_LINK: Final = re.compile(r'<a href="([^"]*)"')
_ID: Final = re.compile(r' id="([^"]*)"')


@pytest.fixture(name="http")
async def _http() -> AsyncIterator[httpx.AsyncClient]:
    async with http_to(make_api(FakeServices())) as http:
        yield http


async def test_every_document_is_a_page_and_every_link_of_it_leads_somewhere(http: httpx.AsyncClient) -> None:
    pages = {address: (await http.get(address)).text for address in addresses()}
    ids = {address: set(_ID.findall(text)) for address, text in pages.items()}
    broken = []
    for address, text in pages.items():
        for link in map(unescape, _LINK.findall(text)):
            target, _, anchor = link.partition("#")
            target = target or address
            if "://" in target or not target.startswith("/help"):
                continue
            if (target not in pages and (await http.get(target)).status_code != 200) or (
                anchor and anchor not in ids.get(target, {anchor})
            ):
                broken.append(f"{address}: {link}")
    assert broken == []
    assert len(pages) > 30


async def test_a_page_has_the_policy_of_the_page_and_no_script(http: httpx.AsyncClient) -> None:
    for path in ("/help", "/help/", "/help/jobs", "/help/reasons", "/help/reasons/client_offline", "/help/search?q=a"):
        answer = await http.get(path)
        assert (answer.status_code, answer.headers["content-security-policy"]) == (200, web.POLICY), path
        assert "<script" not in answer.text
        assert " style=" not in answer.text


async def test_every_code_has_a_page_with_what_to_do(http: httpx.AsyncClient) -> None:
    for code in EXPLANATIONS:
        answer = await http.get(f"/help/reasons/{code}")
        assert answer.status_code == 200, code
        assert "What to do" in answer.text
        assert "What ends it" in answer.text
    unknown = await http.get("/help/reasons/<b>later</b>")
    assert unknown.status_code == 404
    assert "<b>later" not in unknown.text


async def test_the_type_of_a_problem_is_the_address_of_its_page(http: httpx.AsyncClient) -> None:
    problem = (await http.get("/clients/nobody-here")).json()
    assert (await http.get(problem["type"])).status_code == 200


async def test_the_search_finds_a_code_first_and_marks_the_words(http: httpx.AsyncClient) -> None:
    assert search("client_offline")[0].address == "/help/reasons/client_offline"
    assert [hit for hit in search("budget waiters") if "budget" in hit.excerpt.lower()] != []
    assert search("") == search("zzqqxx") == []
    answer = await http.get("/help/search", params={"q": "presigned <script>"})
    assert "<script>" not in answer.text
    found = await http.get("/help/search", params={"q": "presence"})
    assert "<mark>presence</mark>" in found.text.lower()


async def test_only_documents_and_their_pictures_are_served(http: httpx.AsyncClient) -> None:
    for path in ("/help/../pyproject.toml", "/help/%2e%2e/pyproject.toml", "/help/nowhere", "/help/project/LICENSE"):
        assert (await http.get(path)).status_code == 404, path


async def test_without_a_token_the_help_opens_and_no_path_beside_it() -> None:
    """`/helpful` begins with the same letters, and is no page of the help."""
    assert {path for path in OPEN if "help" in path} | {path for path in OPEN_BELOW if "help" in path} == {
        "/help",
        "/help/",
    }
    api = make_api(FakeServices(), JWT_SECRET="a-secret-of-at-least-thirty-two-bytes")
    async with http_to(api) as http:
        for path in ("/help", "/help/", "/help/jobs", "/help/search?q=job", "/help/reasons/client_offline"):
            assert (await http.get(path)).status_code == 200, path
        for path in ("/helpful", "/clients", "/uploads", "/jobs", "/metrics", "/openapi.json", "/help2/jobs"):
            assert (await http.get(path)).status_code == 401, path
        assert (await http.post("/help/jobs")).status_code == 401


def test_html_in_a_document_is_text() -> None:
    assert "<b>" not in rendered("docs/protocol.md").html
    assert [path for path in documents() if "<script" in rendered(path).html or "&lt;!--" in rendered(path).html] == []


def test_anchors_are_those_of_github() -> None:
    for path in documents():
        assert set(_ID.findall(rendered(path).html)) == set(anchors(documents()[path])), path


def test_a_link_to_a_file_that_is_not_served_is_no_link() -> None:
    assert resolved("docs/jobs.md", "../control_plane/settings.py") is None
    assert resolved("docs/jobs.md", "events.md#3-webhooks") == "/help/events#3-webhooks"
    assert resolved("docs/how-to/daily-report.md", "../../README.md") == address_of("README.md")
    assert resolved("README.md", "https://example.org/a.md") == "https://example.org/a.md"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_installed_wheel_has_every_document(tmp_path: Path) -> None:
    def pip(*arguments: str) -> None:
        command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=100)

    pip("wheel", str(ROOT), "--wheel-dir", "wheels")
    wheel = next((tmp_path / "wheels").glob("*.whl"))
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), "site"], cwd=tmp_path, check=True, timeout=60)
    code = (
        "import sys; sys.path.insert(0, 'site')\n"
        "from control_plane.help import library, render\n"
        "print(library.root()); print(*sorted(library.documents()), sep='\\n')\n"
        "assert render.rendered('docs/README.md').html\n"
    )
    packages = [path for path in sys.path if "site-packages" in path]
    ended = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += {packages!r}\n{code}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    root, *paths = ended.stdout.splitlines()
    assert Path(root).resolve().is_relative_to((tmp_path / "site").resolve()) or root.startswith("site")
    assert set(paths) == set(documents())
