"""The project follows its house rules, and each rule is seen to find an offence.

Rule: every rule of `tests/docs/house_rules.py` has an offence in `PLANTED`: a rule that cannot fail guards nothing.
"""

import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement

from tests.docs import house_rules
from tests.docs.house_rules import RULES, Files, HouseRule, unexplained_ignores, unmet_requirements

# They read every file of the project.
pytestmark = pytest.mark.timeout(180)

ROOT: Final = Path(__file__).parents[2]
PYPROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCUMENTED: Final = '"""A module."""\n'
# Written in halves, or this file would offend against the rule that it tests.
LATER: Final = "# TO" + "DO: finish\n"
PROTOCOL: Final = 'class Clock(Protocol):\n    def now(self) -> float:\n        """Seconds."""\n'

PLANTED: Final[Mapping[HouseRule, tuple[Files, list[str]]]] = {
    house_rules.modules_without_docstring: (
        {"broker/a.py": "x = 1\n", "broker/b.py": DOCUMENTED},
        ["broker/a.py"],
    ),
    house_rules.long_files: (
        {"tests/a.py": "x = 1\n" * 601, "tests/b.py": "x = 1\n" * 600},
        ["tests/a.py: 601 lines"],
    ),
    house_rules.crowded_folders: (
        {
            f"{folder}/m{number}.py": ""
            for folder, count in (("broker", 16), ("schemas", 15), (house_rules.HISTORY, 16))
            for number in range(count)
        },
        ["broker: 16 modules"],
    ),
    house_rules.families_without_folder: (
        {f"broker/{name}.py": "" for name in ("part", "part_body", "part_set", "whole_body", "whole_set")},
        ["broker: part, part_body, part_set"],
    ),
    house_rules.modules_for_anything: (
        {"tests/helpers.py": "", "tests/helpful.py": ""},
        ["tests/helpers.py"],
    ),
    house_rules.classes_named_by_hierarchy: (
        {"broker/a.py": "class BaseClient: ...\nclass ClientImpl: ...\nclass Baseline: ...\n"},
        ["broker/a.py: BaseClient", "broker/a.py: ClientImpl"],
    ),
    house_rules.shared_class_names: (
        {"broker/a.py": "class A: ...\nclass _B: ...\n", "broker/b.py": "class A: ...\nclass _B: ...\n"},
        ["A: broker/a.py, broker/b.py"],
    ),
    house_rules.repeated_docstrings: (
        {
            "broker/a.py": PROTOCOL,
            "broker/adapters/b.py": PROTOCOL.replace("Clock(Protocol)", "SystemClock"),
            "broker/adapters/c.py": PROTOCOL.replace("Clock(Protocol)", "Fake").replace(
                "Seconds", "The time of a test"
            ),
        },
        ["broker/adapters/b.py: SystemClock.now"],
    ),
    house_rules.work_left_for_later: (
        {"Makefile": f"all:\n\t{LATER}", "README.md": "Done.\n"},
        [f"Makefile:2: {LATER.strip()}"],
    ),
    house_rules.tests_without_assertion: (
        {"tests/test_a.py": "def test_a():\n    run()\ndef test_b():\n    with raises(OSError):\n        run()\n"},
        ["tests/test_a.py: test_a"],
    ),
    house_rules.lost_cancellations: (
        {
            "broker/a.py": "asyncio.wait_for(x, 1)\nwith suppress(asyncio.CancelledError):\n    pass\n",
            "broker/b.py": "try:\n    x()\nexcept BaseException:\n    pass\n",
            "broker/c.py": "try:\n    x()\nexcept BaseException:\n    raise\nexcept ValueError:\n    pass\n",
            "tests/a.py": "asyncio.wait_for(x, 1)\n",
        },
        ["broker/a.py:1", "broker/a.py:2", "broker/b.py:3"],
    ),
}


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Each text file of the project, by its path from the root: what git tracks or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.is_symlink():
            continue
        content = path.read_bytes()
        if b"\0" not in content:
            yield name, content.decode()


@pytest.fixture(scope="module")
def project() -> Files:
    return dict(tracked_texts())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_follows_the_rule(rule: HouseRule, project: Files) -> None:
    assert rule(project) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_planted_offence_is_found(rule: HouseRule) -> None:
    files, offences = PLANTED[rule]
    assert rule(files) == offences


def test_global_lint_ignores_are_few_and_explained() -> None:
    ignores: list[str] = PYPROJECT["tool"]["ruff"]["lint"]["ignore"]
    assert unexplained_ignores(ignores, (ROOT / "pyproject.toml").read_text()) == []


def test_an_unexplained_or_an_eleventh_ignore_is_found() -> None:
    explained = [f"A{number}" for number in range(11)]
    text = "".join(f'  "{code}",  # a reason\n' for code in explained)
    assert unexplained_ignores(explained[:10], text) == []
    assert unexplained_ignores(explained, text) == ["A10"]
    assert unexplained_ignores(["A0", "B1"], f'{text}  "B1",\n') == ["B1"]


def requirements_of(extra: str) -> Iterator[Requirement]:
    """The requirements of an extra in pyproject.toml; extras of the project itself are resolved."""
    project = PYPROJECT["project"]
    for line in project["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.name == project["name"]:
            for inner in requirement.extras:
                yield from requirements_of(inner)
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
    requirements = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
    requirements += [requirement for extra in extras for requirement in requirements_of(extra)]
    assert unmet_requirements(requirements, (ROOT / "requirements" / f"{lock}.txt").read_text()) == []


def test_a_missing_and_an_old_version_are_found_in_a_lock() -> None:
    requirements = [Requirement(line) for line in ("one>=2", "two-parts>=1.5", "three>=1")]
    assert unmet_requirements(requirements, "one[extra]==1.9 \\\n    --hash=x\nTwo_Parts==1.5\n") == [
        "one>=2",
        "three>=1",
    ]
