"""One site for all tests of this folder that a worker runs; a test that needs other settings starts its own.

Rule: a test gets it whole, whatever the test before has broken.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.server import find_mosquitto
from tests.support.fault_sites import FAKETIME, FaultSite, running_site, small_tmpfs

PATIENCE = 120
"""Seconds: these tests wait for processes, on machines that may have other things to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder more time than the others, where they do not ask for their own."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PATIENCE))


@pytest.fixture(scope="session")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSite]:
    """The site itself."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: run `apt-get install mosquitto`")
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(shared_site: FaultSite) -> Iterator[FaultSite]:
    """The site, whole and without agents."""
    shared_site.healed()
    yield shared_site
    shared_site.healed()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A client id that no other test has."""
    words: str = request.node.name
    return "".join(letter if letter.isalnum() else "-" for letter in words)[-56:].strip("-")


@pytest.fixture(scope="session")
def faketime() -> str:
    """The library that gives a process another clock."""
    if FAKETIME is None:
        pytest.skip("faketime is not installed: run `apt-get install faketime`")
    return str(FAKETIME)


@pytest.fixture
def strace() -> str:
    """The program that kills another at its n-th system call of a kind."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed: run `apt-get install strace`")
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that is soon full."""
    with small_tmpfs(tmp_path / "disk", "256k") as disk:
        yield disk
