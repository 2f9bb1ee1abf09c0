"""The order of the test files names files that exist, and puts each listed one before the others."""

from pathlib import Path
from typing import Final

from tests.support.scheduling import LONG, SOAK, is_soak, missing, place

ROOT: Final = Path(__file__).parents[2]


def test_every_listed_file_exists_and_is_listed_once() -> None:
    assert missing(ROOT) == []
    assert len(set(LONG)) == len(LONG)
    assert missing(ROOT, ["tests/test_of_nothing.py"]) == ["tests/test_of_nothing.py"]


def test_a_listed_file_comes_before_all_others_in_the_order_of_the_list() -> None:
    listed = [place(ROOT / name, ROOT) for name in LONG]
    assert listed == sorted(listed)
    assert max(listed) < place(ROOT / "tests/unit/test_scheduling.py", ROOT)
    assert place(ROOT / "tests/unit/test_scheduling.py", ROOT) == place(Path("/elsewhere/test_a.py"), ROOT)


def test_the_soak_is_the_slow_tests_of_files_that_exist() -> None:
    assert missing(ROOT, sorted(SOAK)) == []
    one = ROOT / min(SOAK)
    assert (is_soak(one, ROOT, is_fast=False), is_soak(one, ROOT, is_fast=True)) == (True, False)
    assert not is_soak(ROOT / "tests/unit/test_scheduling.py", ROOT, is_fast=False)
