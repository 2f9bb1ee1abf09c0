"""A run of continuous integration fails when a test that it exists to run was skipped, or was not there.

The kind: a check that passes because it did not take place. Real sessions of pytest, as make starts them.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PASSES: Final = "def test_a():\n    assert True\n"
SKIPS: Final = "import pytest\n\ndef test_b():\n    pytest.skip({reason!r})\n"
MODULE_SKIPS: Final = "import pytest\n\npytest.skip('no engine', allow_module_level=True)\n"


def run(folder: Path, *options: str, ci: str = "true") -> "subprocess.CompletedProcess[str]":
    """A session of pytest over `folder`, with the check that tests/conftest.py installs."""
    (folder / "conftest.py").write_text(
        "from tests.support import required_tests\n"
        "pytest_addoption = required_tests.add_option\n"
        "pytest_configure = required_tests.configure\n"
    )
    environment = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "-p",
        "no:cacheprovider",
        *options,
    ]
    return subprocess.run(
        [*command, str(folder)], env=environment, capture_output=True, text=True, check=False, cwd=folder, timeout=240
    )


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "workers"])
def test_a_skip_fails_continuous_integration_with_its_reason(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """The suite of one skipped test exits 0 without the check."""
    (tmp_path / "test_x.py").write_text(PASSES + SKIPS.format(reason="no Docker daemon answers"))
    ended = run(tmp_path, *workers)
    assert ended.returncode == 1, ended.stdout
    assert "test_b: no Docker daemon answers" in ended.stdout


def test_a_module_that_skips_itself_fails_continuous_integration(tmp_path: Path) -> None:
    """Nothing of such a module is collected, so no test of it is reported."""
    (tmp_path / "test_x.py").write_text(MODULE_SKIPS)
    (tmp_path / "test_y.py").write_text(PASSES)
    ended = run(tmp_path)
    assert ended.returncode == 1, ended.stdout
    assert "no engine" in ended.stdout


def test_a_suite_that_ran_too_few_tests_fails_continuous_integration(tmp_path: Path) -> None:
    """A marker that is misspelled selects nothing, and nothing fails."""
    (tmp_path / "test_x.py").write_text(PASSES)
    assert run(tmp_path, "--at-least", "1").returncode == 0
    ended = run(tmp_path, "--at-least", "2")
    assert ended.returncode == 1, ended.stdout
    assert "1 tests ran, and this suite must run at least 2" in ended.stdout


def test_an_allowed_skip_and_an_expected_failure_pass(tmp_path: Path) -> None:
    """A kernel without IPv6 cannot be mended by a package."""
    expected = "import pytest\n\n@pytest.mark.xfail\ndef test_c():\n    assert False\n"
    (tmp_path / "test_x.py").write_text(PASSES + SKIPS.format(reason="this machine has no IPv6") + expected)
    ended = run(tmp_path)
    assert ended.returncode == 0, ended.stdout


def test_elsewhere_a_skip_is_only_listed(tmp_path: Path) -> None:
    """A person's machine may lack what a test needs."""
    (tmp_path / "test_x.py").write_text(SKIPS.format(reason="no Docker daemon answers"))
    ended = run(tmp_path, "-rs", "--at-least", "5", ci="")
    assert ended.returncode == 0, ended.stdout
    assert "no Docker daemon answers" in ended.stdout
