"""What the package is built from reaches every image that builds it: copied by its Dockerfile, and not ignored.

The images are built only where a Docker engine runs, late in CI: a file that the build needs and that no Dockerfile
copies is found here.
"""

import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCKERFILES: Final = sorted((ROOT / "deploy").glob("Dockerfile.*"))
BUILDING: Final = [one for one in DOCKERFILES if "pip wheel" in one.read_text("utf-8")]


def built_from() -> set[str]:
    """The files and folders of the checkout that `pyproject.toml` puts into the wheel, and that file itself."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    return {"pyproject.toml", *settings["project"]["license-files"], *wheel["packages"], *wheel["force-include"]}


def copied(dockerfile: Path) -> set[str]:
    """The sources of each COPY out of the checkout."""
    lines = dockerfile.read_text("utf-8").replace("\\\n", " ").splitlines()
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from=" not in line]
    return {source for sources in copies for source in sources}


def let_through(path: str) -> bool:
    """Whether `.dockerignore` lets this file, or something in this folder, reach an image."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    wanted = [line.removeprefix("!") for line in lines if line.startswith("!")]
    inside = f"{path}/x" if (ROOT / path).is_dir() else path
    return any(fnmatch(inside, one.replace("**", "*")) for one in wanted)


def test_there_are_images_that_build_the_package() -> None:
    assert {one.name for one in BUILDING} == {"Dockerfile.client", "Dockerfile.server"}


@pytest.mark.parametrize("dockerfile", BUILDING, ids=lambda one: one.name)
def test_an_image_copies_all_that_the_package_is_built_from(dockerfile: Path) -> None:
    assert built_from() - copied(dockerfile) == set()


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda one: one.name)
def test_what_an_image_copies_exists_and_is_not_ignored(dockerfile: Path) -> None:
    lost = [
        one for one in copied(dockerfile) if not (ROOT / one.rstrip("/")).exists() or not let_through(one.rstrip("/"))
    ]
    assert lost == []


def test_the_source_distribution_has_all_that_the_package_is_built_from() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    included = {one.strip("/") for one in settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}
    # Hatchling adds these two by itself.
    assert built_from() - included - {"pyproject.toml", "LICENSE"} == set()
