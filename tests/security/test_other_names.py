"""A folder with two names, by a link: a rule of the policy that is written with one of them holds for the other.

Rule: each attack first shows that the same file is read without the rule.
"""

from pathlib import Path

import pytest

from device_agent.files.listing import list_files
from device_agent.files.roots import Roots
from device_agent.files.source import open_source
from device_agent.policy.document import PathClass
from schemas.messages import ListFiles
from tests.security.test_policy import make, policy, rule_against, shown


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """`/data`, a link to `/disk`, with a private file in it."""
    make(tmp_path, ["disk/private/a", "disk/open/b"])
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    return tmp_path


@pytest.mark.parametrize("root", ["data", "disk"])
@pytest.mark.parametrize("written", ["data", "disk"])
@pytest.mark.parametrize("pattern", ["private", "priv*", "*/a"])
def test_a_denied_path_is_denied_by_each_name_of_its_folder(disk: Path, root: str, written: str, pattern: str) -> None:
    allowed = (f"{disk}/{root}",)
    rules = policy(deny=(f"{disk}/{written}/{pattern}",))
    for name in {root, "disk"}:
        path = f"{disk}/{name}/private/a"
        open_source(path, Roots(allowed)).close()
        assert rule_against(path, Roots(allowed, policy=rules)) == f"deny '{disk}/{written}/{pattern}'"
    assert shown(disk / root, Roots(allowed, policy=rules)) == {"open/b"}


@pytest.mark.parametrize("written", ["data", "disk"])
def test_a_person_is_asked_for_a_file_by_each_name_of_its_folder(disk: Path, written: str) -> None:
    classes = {"camera": PathClass(paths=(f"{disk}/{written}/private",), consent="ask")}
    roots = Roots((f"{disk}/data",), policy=policy(classes=classes))
    for name in ("data", "disk"):
        path = f"{disk}/{name}/private/a"
        open_source(path, roots).close()
        assert roots.asks_for(path) == "camera"
        assert roots.asks_for(f"{disk}/{name}/open/b") is None


def test_a_link_outside_of_the_settings_is_another_name_too(disk: Path) -> None:
    """The owner writes the path that a person uses; the settings have the one of the disk."""
    (disk / "home").symlink_to(disk / "disk")
    roots = Roots((f"{disk}/disk",), policy=policy(deny=(f"{disk}/home/private/**",)))
    assert rule_against(f"{disk}/disk/private/a", roots) == f"deny '{disk}/home/private/**'"
    assert list_files(ListFiles(f"{disk}/disk/private/*"), roots).files == ()


def test_a_folder_whose_name_looks_like_a_pattern_is_no_pattern(tmp_path: Path) -> None:
    make(tmp_path, ["[ab]*/x", "a1/x"])
    (tmp_path / "link").symlink_to(tmp_path / "[ab]*")
    roots = Roots((str(tmp_path),), policy=policy(deny=(f"{tmp_path}/link/x",)))
    assert rule_against(f"{tmp_path}/[ab]*/x", roots) == f"deny '{tmp_path}/link/x'"
    assert rule_against(f"{tmp_path}/a1/x", roots) is None
