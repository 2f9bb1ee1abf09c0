"""The house rules that no linter knows, walked over every file of the project.

Rule: a rule is a function from files to offences; a test names the offences and expects none.
"""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
SOURCE_FOLDERS: Final = ("schemas", "broker", "device_agent", "control_plane", "deploy", "benchmarks", "tests")
LONGEST: Final = 600
MOST_IGNORES: Final = 10
PYPROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())

# Written in halves, or this file would offend against itself.
UNFINISHED: Final = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME)\b")
ELSEWHERE: Final = re.compile(
    r"(?<![\w.$}])/wor" + r"k\b|/tmp/bash" + r"_jobs|py" + r"pi\.org|python" + r"hosted\.org|registry\.npm" + r"js\.org"
)
FORBIDDEN_CLASS: Final = re.compile(r"^Base(?:[A-Z]|$)|(?:Manager|Impl)$")


def python_files() -> list[Path]:
    """Every Python file of the project."""
    return sorted(path for folder in SOURCE_FOLDERS for path in (ROOT / folder).rglob("*.py"))


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Each file under version control that is text, by its path from the root."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.is_symlink():
            continue
        content = path.read_bytes()
        if b"\0" not in content:
            yield name, content.decode()


def lines_matching(pattern: re.Pattern[str]) -> list[str]:
    """Where the pattern occurs in tracked files, as `path:line: text`."""
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def asserts_something(function: ast.AST) -> bool:
    """Whether a test can fail by more than an accident: assert, `pytest.raises` and its like, or a named check."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in {"raises", "warns", "fail"} or name.startswith(("assert_", "check_")):
                return True
    return False


def test_every_module_has_a_docstring() -> None:
    assert [str(path) for path in python_files() if ast.get_docstring(parse(path)) is None] == []


def test_no_source_file_is_too_long() -> None:
    lengths = {str(path): len(path.read_text().splitlines()) for path in python_files()}
    assert {path: length for path, length in lengths.items() if length > LONGEST} == {}


def test_no_module_is_a_drawer_for_anything() -> None:
    assert [str(path) for path in python_files() if path.stem in {"utils", "util", "helpers", "misc"}] == []


def test_no_class_is_named_after_its_place_in_a_hierarchy() -> None:
    names = [
        f"{path}: {node.name}"
        for path in python_files()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ClassDef) and FORBIDDEN_CLASS.search(node.name)
    ]
    assert names == []


def test_nothing_is_left_for_later_in_a_comment() -> None:
    assert lines_matching(UNFINISHED) == []


def test_no_file_names_the_machine_or_a_package_registry() -> None:
    assert lines_matching(ELSEWHERE) == []


def test_every_test_asserts_something() -> None:
    silent = [
        f"{path}: {node.name}"
        for path in python_files()
        if path.name.startswith("test_")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_") and not asserts_something(node)
    ]
    assert silent == []


def test_global_lint_ignores_are_few_and_explained() -> None:
    ignores = PYPROJECT["tool"]["ruff"]["lint"]["ignore"]
    text = (ROOT / "pyproject.toml").read_text()
    assert len(ignores) <= MOST_IGNORES
    assert [code for code in ignores if not re.search(rf'^  "{code}", +# \w', text, re.MULTILINE)] == []


def locked_versions(lock: str) -> dict[str, str]:
    """The pinned version of each distribution in one of the lock files."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    pins: list[tuple[str, str]] = re.findall(r"^([\w.-]+)(?:\[.*\])?==([^ ;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def wanted(extra: str) -> Iterator[Requirement]:
    """The requirements of an extra in pyproject.toml; extras of this project are followed."""
    project = PYPROJECT["project"]
    for line in project["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.name == project["name"]:
            for inner in requirement.extras:
                yield from wanted(inner)
        else:
            yield requirement


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("agent", ["signing"]),
        ("server", ["server", "signing", "postgres"]),
        ("demo", ["demo"]),
        ("dev", ["dev"]),
    ],
)
def test_a_lock_satisfies_pyproject(lock: str, extras: list[str]) -> None:
    """`make lock` was run after the last change of a dependency."""
    versions = locked_versions(lock)
    required = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
    required += [requirement for extra in extras for requirement in wanted(extra)]
    unmet = [
        str(requirement)
        for requirement in required
        if not requirement.specifier.contains(versions.get(canonicalize_name(requirement.name), "0"))
    ]
    assert unmet == []
