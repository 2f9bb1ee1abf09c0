"""One site for all tests of this folder that a worker runs; a test that needs other settings starts another site.

Rule: the site is reset before and after every test.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.server import find_mosquitto
from tests.support.fault_sites import FAKETIME, FaultSite, running_site, small_tmpfs

PATIENCE = 120
"""Timeout of a test in seconds: these tests wait for processes, and the machine may be busy."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder a longer timeout, except those with a timeout marker."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PATIENCE))


@pytest.fixture(scope="session")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSite]:
    """The site of the session."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: run `apt-get install mosquitto`")
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(shared_site: FaultSite) -> Iterator[FaultSite]:
    """The site, without faults and without agents."""
    shared_site.reset()
    yield shared_site
    shared_site.reset()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A client id that no other test has. It begins with a letter of its own, since some beginnings are reserved."""
    test_name: str = request.node.name
    return "t-" + "".join(letter if letter.isalnum() else "-" for letter in test_name)[-56:].strip("-")


@pytest.fixture(scope="session")
def faketime() -> str:
    """The library that shifts the clock of a process."""
    if FAKETIME is None:
        pytest.skip("faketime is not installed: run `apt-get install faketime`")
    return str(FAKETIME)


@pytest.fixture
def strace() -> str:
    """The program that kills a process at its n-th system call of one kind."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed: run `apt-get install strace`")
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with small_tmpfs(tmp_path / "disk", "256k") as disk:
        yield disk
