"""The files of the page: small, from here, what their makers published, and complete.

Rule: read as text; what they do in a browser is tested in `tests/browser`.
"""

import re
from hashlib import sha256
from typing import Final

import pytest

from control_plane.domain.access import Scope
from control_plane.domain.audit.model import Act, Outcome
from control_plane.services.events.filters import CHANGE_NAMES
from control_plane.web import STATIC

VENDOR: Final = STATIC / "vendor"
OWN: Final = sorted(path for path in STATIC.rglob("*.js") if VENDOR not in path.parents)
KIB: Final = 1_000
IMPORT: Final = re.compile(r"""(?:from|import)\s*\(?\s*["']([^"']+)["']""")
LICENCES: Final = {"MIT", "Apache-2.0"}


def versions() -> list[list[str]]:
    """File, package, version, licence and SHA-256 of each vendored file."""
    return [line.split() for line in (VENDOR / "VERSIONS").read_text().splitlines()[1:]]


def test_each_library_is_the_file_that_versions_names() -> None:
    named = {file: digest for file, _, _, _, digest in versions()}
    assert named == {path.name: sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.*s*")}
    assert {licence for _, _, _, licence, _ in versions()} <= LICENCES
    texts = (VENDOR / "LICENSES").read_text()
    assert all(f"{package} {version}" in texts for _, package, version, _, _ in versions())


def test_the_libraries_are_small() -> None:
    assert sum(path.stat().st_size for path in VENDOR.glob("*.js")) <= 100 * KIB


def test_own_modules_are_short_and_say_what_they_are() -> None:
    for path in OWN:
        lines = path.read_text().splitlines()
        assert len(lines) <= 600, path
        assert lines[0].startswith("// "), f"{path} begins with its purpose"
    # The page does not load the style of the help.
    styles = [STATIC / "app.css", *(path for path in (STATIC / "styles").glob("*.css") if path.name != "help.css")]
    assert sum(path.stat().st_size for path in styles) <= 30 * KIB


@pytest.mark.parametrize("name", [path.relative_to(STATIC).as_posix() for path in [*OWN, *VENDOR.glob("*.js")]])
def test_a_module_imports_what_is_there(name: str) -> None:
    """A view that is not there would fail when it is opened, and not before."""
    module = STATIC / name
    for imported in IMPORT.findall(module.read_text()):
        assert imported.startswith("."), f"{name} imports {imported}, which a browser cannot resolve"
        assert (module.parent / imported).resolve().is_file(), f"{name} imports {imported}"


def test_views_take_nothing_from_the_libraries_directly() -> None:
    for path in OWN:
        found = [name for name in IMPORT.findall(path.read_text()) if "/vendor/" in name]
        assert not found or path.parent.name == "core" or path.name == "chart.js", path


def test_the_document_has_no_script_and_no_style_of_its_own() -> None:
    text = (STATIC / "index.html").read_text()
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|https?:", text) == []
    assert re.findall(r"<script(?![^>]*\ssrc=)", text) == []
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', text):
        assert (STATIC / address.removeprefix("/static/")).is_file(), address


def test_the_page_listens_to_every_type_of_change() -> None:
    """A browser has no listener for all types: one that is missing here would never be seen."""
    block = re.findall(r"export const TYPES = \[(.*?)\]", (STATIC / "core" / "live.js").read_text(), re.DOTALL)[0]
    assert set(re.findall(r'"([a-z_.]+)"', block)) == set(CHANGE_NAMES)


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("tokens/scopes.js", "SCOPES", list(Scope)),
        ("audit/names.js", "ACTS", list(Act)),
        ("audit/names.js", "OUTCOMES", list(Outcome)),
    ],
)
def test_the_page_names_what_the_server_names(module: str, name: str, expected: list[str]) -> None:
    """A scope that is missing would make a token look as if it could do everything; an act could not be filtered."""
    text = (STATIC / "views" / module).read_text()
    block = re.findall(rf"export const {name} = \[(.*?)\]", text, re.DOTALL)[0]
    assert re.findall(r'"([a-z_.:]+)"', block) == expected


def test_no_module_asks_again_by_a_timer() -> None:
    """Live by push: a repeated timer may move what is shown, and reads nothing (core/zone.js)."""
    assert [path.name for path in OWN if "setInterval" in path.read_text()] == ["zone.js"]
