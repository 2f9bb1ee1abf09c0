"""Compose files, images and broker configurations, read by the programs that their users have.

Rule: no engine is needed here. docker-compose 1.29 and today's must both accept a compose file.
"""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.engine_stack import ROOT
from tests.support.engine_tools import Tools, tools

__all__ = ["tools"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

POSTGRES: Final = "deploy/production/postgres.yml"
COMPOSE_FILES: Final = (
    ("docker-compose.yml",),
    ("docker-compose.prod.yml",),
    ("docker-compose.prod.yml", POSTGRES),
)
CONFIGURATIONS: Final = ("deploy/production/mosquitto.conf", "deploy/kubernetes/base/mosquitto.conf")
OURS: Final = "backhaul-"


def config(compose: str, files: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """What compose makes of the files."""
    named = [word for name in files for word in ("--file", name)]
    environment = {**os.environ, "BACKHAUL_PUBLIC_HOST": "backhaul.example.com"}
    return subprocess.run(
        [compose, *named, "config"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("files", COMPOSE_FILES, ids="+".join)
def test_docker_compose_1_29_reads_the_file(files: tuple[str, ...]) -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed: apt-get install docker-compose")
    read = config("docker-compose", files)
    assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.parametrize("files", COMPOSE_FILES, ids="+".join)
def test_docker_compose_of_today_reads_the_file(files: tuple[str, ...], tools: Tools) -> None:
    read = config(str(tools.compose), files)
    assert (read.returncode, read.stderr) == (0, "")


GIVEN: Final = {"FOUR_EYES_SELECTOR": "site=berlin", "OIDC_ISSUER": "https://login.example.com/realms/fleet"}


def given_to_the_server(compose: str, directory: Path) -> dict[str, str | None]:
    """The environment of the control plane of production with an `.env` of these settings, and of one that is none."""
    lines = {**GIVEN, "POSTGRES_PASSWORD": "hidden", "BACKHAUL_PUBLIC_HOST": "backhaul.example.com"}
    (directory / "env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    command = [compose, "--env-file", str(directory / "env"), "--file", "docker-compose.prod.yml", "config"]
    read = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, str | None] = yaml.safe_load(read.stdout)["services"]["server"]["environment"]
    return found


def test_both_composes_give_the_control_plane_its_settings_and_nothing_else_of_env(
    tools: Tools, tmp_path: Path
) -> None:
    old = shutil.which("docker-compose")
    for compose in filter(None, (old, str(tools.compose))):
        environment = given_to_the_server(compose, tmp_path)
        assert {name: environment[name] for name in GIVEN} == GIVEN
        assert environment["REQUIRE_REASON"] is None
        assert "POSTGRES_PASSWORD" not in environment


def test_the_ports_of_the_first_try_are_published_on_loopback_only(tools: Tools) -> None:
    read = yaml.safe_load(config(str(tools.compose), ("docker-compose.yml",)).stdout)
    ports = [port for service in read["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_production_requires_its_host_name(tools: Tools) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BACKHAUL_")}
    command = [str(tools.compose), "--env-file", os.devnull, "--file", "docker-compose.prod.yml", "config"]
    refused = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "BACKHAUL_PUBLIC_HOST" in refused.stderr


def above_the_listeners(path: Path) -> list[str]:
    """The directives that hold for every listener."""
    lines = (line.strip() for line in path.read_text().splitlines())
    directives = [line for line in lines if line and not line.startswith("#")]
    first = next(number for number, line in enumerate(directives) if line.startswith("listener"))
    return directives[:first]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_broker_configuration_shares_what_is_above_the_listeners(name: str) -> None:
    assert above_the_listeners(ROOT / name) == above_the_listeners(ROOT / "mosquitto.conf")


def test_an_image_is_built_by_one_service_and_the_others_start_after_it(tools: Tools) -> None:
    """Two that build one image race for its name; one that neither builds nor waits finds none on a fresh machine."""
    for files in COMPOSE_FILES:
        services = yaml.safe_load(config(str(tools.compose), files).stdout)["services"]
        builds = [(service["image"], name) for name, service in services.items() if "build" in service]
        assert len(builds) == len(dict(builds)), files
        ours = {name: service["image"] for name, service in services.items() if service["image"].startswith(OURS)}
        assert [name for name, image in ours.items() if dict(builds)[image] not in awaited(services, name)] == []


def awaited(services: dict[str, Any], name: str) -> set[str]:
    """A service, and what it starts after."""
    return {name}.union(*(awaited(services, one) for one in services[name].get("depends_on", ())))


def pinned(image: str) -> bool:
    """Whether a tag names a release that does not move; PostgreSQL's have two numbers, those of others three."""
    name, _, tag = image.partition(":")
    return re.match(r"\d+\.\d+(?:-|$)" if name == "postgres" else r"\d+\.\d+\.\d+(?:-|$)", tag) is not None


def test_every_image_of_others_is_pinned_to_a_release() -> None:
    """By its tag; ours bear none in compose files, being built where they run."""
    paths = [*ROOT.glob("docker-compose*.yml"), *ROOT.glob("deploy/Dockerfile.*"), *ROOT.glob("deploy/**/*.y*ml")]
    named = {name for path in paths for name in re.findall(r"(?:image: |PYTHON_IMAGE=)(\S+)", path.read_text())}
    assert {name.partition(":")[0] for name in named} >= {"python", "postgres", "caddy", "eclipse-mosquitto"}
    assert [name for name in named if not name.startswith(OURS) and not pinned(name)] == []
    assert [name for name in named if name.startswith(OURS) and ":" in name] == []


@pytest.mark.parametrize("image", ["caddy", "caddy:latest", "caddy:2", "caddy:2.10", "postgres:15", "python:3.11-slim"])
def test_a_moving_tag_is_not_a_pin(image: str) -> None:
    assert not pinned(image)


def test_kubernetes_takes_our_images_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    texts = [path.read_text() for path in ROOT.glob("deploy/kubernetes/*/kustomization.yaml")]
    assert [tag for text in texts for tag in re.findall(r"newTag: ([^\s}]+)", text)] == [version, version]
