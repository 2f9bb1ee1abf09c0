"""Compose files, broker configurations and Kubernetes manifests, read by the programs that their users have.

Rule: no engine is needed here. docker-compose 1.29 and today's must both accept a compose file, kustomize must render
the manifests, and what it renders is held against the schemas of Kubernetes.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.engine_stack import ROOT, copy_checkout
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
VERSIONS: Final = ("1.31", "1.34", "1.37")
"""Kubernetes as old as is still found, and as new as the schemas go."""


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


def test_what_the_first_try_publishes_is_for_this_machine_alone(tools: Tools) -> None:
    read = yaml.safe_load(config(str(tools.compose), ("docker-compose.yml",)).stdout)
    ports = [port for service in read["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_production_wants_the_name_that_it_serves(tools: Tools) -> None:
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


@pytest.fixture(scope="module")
def manifests(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with secrets made as the guide says, rendered."""
    directory = copy_checkout(tmp_path_factory.mktemp("kubernetes"))
    guide = (ROOT / "docs/containers.md").read_text()
    block = re.findall(r"^```sh\n(cp -r deploy/kubernetes.*?)^```", guide, re.MULTILINE | re.DOTALL)[0]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=directory, env=environment, check=True)
    rendered = subprocess.run(
        [tools.kubectl, "kustomize", "deploy/kubernetes/mine"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    )
    path = directory / "rendered.yaml"
    path.write_text(rendered.stdout)
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_every_manifest(manifests: Path, tools: Tools, version: str) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", version, str(manifests)],
        env={**os.environ, "PYTHONPATH": str(tools.modules)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert (checked.stdout + checked.stderr).count(" passed ") == len(objects(manifests))


def test_every_kind_that_was_promised_is_there(manifests: Path) -> None:
    kinds = {one["kind"] for one in objects(manifests)}
    wanted = {
        "Deployment",
        "StatefulSet",
        "Job",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Secret",
        "Service",
        "Ingress",
    }
    assert wanted <= kinds


def test_every_pod_can_do_little_and_says_what_it_needs(manifests: Path) -> None:
    """What the namespace's policy `restricted` asks for, and more."""
    specs = [one["spec"]["template"]["spec"] for one in objects(manifests) if "template" in one.get("spec", {})]
    assert len(specs) == 3
    for spec in specs:
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            limited = container["securityContext"]
            assert limited["readOnlyRootFilesystem"] is True
            assert limited["allowPrivilegeEscalation"] is False
            assert limited["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_what_is_long_lived_is_probed(manifests: Path) -> None:
    lasting = [one for one in objects(manifests) if one["kind"] in {"Deployment", "StatefulSet"}]
    containers = [container for one in lasting for container in one["spec"]["template"]["spec"]["containers"]]
    probes = {"startupProbe", "readinessProbe", "livenessProbe"}
    assert [container["name"] for container in containers if not probes <= container.keys()] == []


def test_only_the_control_plane_comes_to_the_services_listener(manifests: Path) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in objects(manifests) if one["kind"] == "NetworkPolicy"}
    assert policies["default-deny"]["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = [one for one in policies["broker"]["ingress"] if one["ports"][0]["port"] == "services"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "control-plane"


def test_no_image_is_left_without_a_version() -> None:
    """In Dockerfiles and compose files; ours are built where they run."""
    texts = [path.read_text() for path in (*ROOT.glob("docker-compose*.yml"), *ROOT.glob("deploy/Dockerfile.*"))]
    texts.append((ROOT / POSTGRES).read_text())
    named = [name for text in texts for name in re.findall(r"(?:image: |PYTHON_IMAGE=)(\S+)", text)]
    assert [name for name in named if not name.startswith("backhaul-") and ":" not in name] == []


def objects(manifests: Path) -> list[dict[str, Any]]:
    """Everything that was rendered."""
    return list(yaml.safe_load_all(manifests.read_text()))
