"""Fixtures of the container tests: the images, built once, and what they stand on.

Rule: a test module imports the fixtures it wants.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.engine_images import CADDY, MOSQUITTO, POSTGRES, PYTHON, Images, size
from tests.support.engine_stack import copy_checkout

OURS: Final = {name: f"deploy/Dockerfile.{name}" for name in ("server", "client", "store")}


@pytest.fixture(scope="session")
def images() -> Iterator[Images]:
    """What our images stand on."""
    found = Images()
    yield found
    found.remove_stand_ins()


@pytest.fixture(scope="session")
def bases(images: Images) -> None:
    """What the first try stands on, besides what it builds."""
    images.provide(PYTHON, MOSQUITTO)


@pytest.fixture(scope="session")
def built(bases: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Our images under the names that the compose files use."""
    directory = copy_checkout(tmp_path_factory.mktemp("build"))
    for name, dockerfile in OURS.items():
        _build(directory, name, dockerfile)


def forget_ours() -> None:
    """As on a machine where nothing was built; what the builder remembers of its steps is left."""
    for name in OURS:
        subprocess.run(["docker", "rmi", "--force", "--no-prune", f"backhaul-{name}"], capture_output=True, check=False)


def added() -> dict[str, int]:
    """How many bytes each of our images adds to its base."""
    return {name: size(f"backhaul-{name}") - size(PYTHON) for name in OURS}


@pytest.fixture(scope="session")
def caddy_image(built: None, images: Images) -> None:
    """Also what production stands on."""
    images.provide(CADDY)


@pytest.fixture(scope="session")
def production_images(caddy_image: None, images: Images) -> None:
    """Also what it stands on with PostgreSQL."""
    images.provide(POSTGRES)


def _build(directory: Path, name: str, dockerfile: str) -> None:
    ended = subprocess.run(
        ["docker", "build", "--quiet", "--file", dockerfile, "--tag", f"backhaul-{name}", "."],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{dockerfile}:\n{ended.stdout[-4000:]}"
