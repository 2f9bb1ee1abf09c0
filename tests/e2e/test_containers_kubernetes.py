"""The Kubernetes manifests, rendered by kustomize and held against the schemas of Kubernetes.

Rule: what is looked at is the example, its secrets made as the guide describes, with every option for egress.
"""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.engine_stack import ROOT, copy_checkout
from tests.support.engine_tools import Tools, tools

__all__ = ["tools"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

VERSIONS: Final = ("1.31", "1.34", "1.37")
"""Kubernetes as old as is still found, and as new as the schemas go."""

MOUNTED: Final = "/run/secrets/backhaul"


@pytest.fixture(scope="module")
def manifests(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with secrets made as the guide describes, rendered."""
    directory = copy_checkout(tmp_path_factory.mktemp("kubernetes"))
    guide = (ROOT / "docs/containers.md").read_text()
    block = re.findall(r"^```sh\n(cp -r deploy/kubernetes.*?)^```", guide, re.MULTILINE | re.DOTALL)[0]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=directory, env=environment, check=True)
    overlay = directory / "deploy/kubernetes/mine/kustomization.yaml"
    text = overlay.read_text()
    # The ways out that are named in a comment only, so that they are held against the schemas too.
    overlay.write_text(text.replace("\nresources: [../base]", "\nresources: [../base, egress.yaml]"))
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


def test_every_required_kind_of_broker_is_installed(manifests: Path) -> None:
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


def test_every_pod_is_restricted_and_declares_its_resources(manifests: Path) -> None:
    """The requirements of the namespace's policy `restricted`, and more."""
    specs = [one["spec"]["template"]["spec"] for one in objects(manifests) if "template" in one.get("spec", {})]
    assert len(specs) == 3
    for spec in specs:
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
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


def test_the_migrations_job_needs_nothing_but_what_it_is_given(manifests: Path, tmp_path: Path) -> None:
    """Its command, with the variables of the image and the Job's own; only SQLite is put in place of PostgreSQL."""
    (job,) = [one for one in objects(manifests) if one["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    image = (ROOT / "deploy/Dockerfile.server").read_text().rpartition("\nENV ")[2].partition("\nUSER ")[0]
    environment = dict(re.findall(r"(\w+)=(\S+)", image))
    assert environment["SERVER_HOST"] == "0.0.0.0"  # noqa: S104 - what serving without a JWT_SECRET is refused for
    environment |= {one["name"]: one["value"].replace(MOUNTED, str(tmp_path)) for one in container["env"]}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    (tmp_path / "database_url").write_text(f"sqlite:///{tmp_path}/backhaul.db\n")
    programs = ROOT / "deploy/containers"
    command = [str(programs / "with-secrets"), str(programs / container["args"][0]), *container["args"][1:]]
    for _ in range(2):
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "the database has the newest schema\n", "")
    with closing(sqlite3.connect(tmp_path / "backhaul.db")) as database:
        assert database.execute("SELECT count(*) FROM uploads").fetchone() == (0,)


def test_the_database_is_reached_by_tls_with_a_verified_certificate(manifests: Path) -> None:
    """Libpq alone prefers TLS, and goes on without it."""
    pods = [one["spec"]["template"]["spec"] for one in objects(manifests) if "template" in one.get("spec", {})]
    variables = [{each["name"]: each["value"] for each in pod["containers"][0].get("env", ())} for pod in pods]
    with_database = [given for given in variables if "DATABASE_URL_FILE" in given]
    assert [given["PGSSLMODE"] for given in with_database] == ["verify-full"] * 2


def test_every_replica_has_the_same_private_keys_in_memory(manifests: Path) -> None:
    """Their state folders are empty at each start: a key that a replica made would end with it."""
    (secret,) = [
        one for one in objects(manifests) if one["kind"] == "Secret" and one["metadata"]["name"].startswith("control-")
    ]
    (plane,) = [one for one in objects(manifests) if one["kind"] == "Deployment"]
    pod = plane["spec"]["template"]["spec"]
    files = {one["name"]: one["value"] for one in pod["containers"][0]["env"] if one["name"].endswith("_KEY_FILE")}
    assert {value.removeprefix(f"{MOUNTED}/") for value in files.values()} <= secret["data"].keys()
    assert files.keys() > {"AUDIT_KEY_FILE", "SIGNING_KEY_FILE"}
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["mountPath"] == "/run/backhaul"]
    (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
    assert volume["emptyDir"]["medium"] == "Memory"


def test_a_bundle_names_the_broker_as_devices_reach_it(manifests: Path) -> None:
    """Not as the control plane does; and the authority that it has beside the address is mounted."""
    (given,) = [
        one["data"]
        for one in objects(manifests)
        if one["kind"] == "ConfigMap" and one["metadata"]["name"].startswith("control-plane")
    ]
    url = urlsplit(given["DEVICE_MQTT_URL"])
    (service,) = [
        one["spec"]
        for one in objects(manifests)
        if one["kind"] == "Service" and one["spec"].get("type") == "LoadBalancer"
    ]
    assert (url.scheme, [url.port]) == ("mqtts", [one["port"] for one in service["ports"]])
    named = subprocess.run(
        [
            "openssl",
            "x509",
            "-in",
            "deploy/kubernetes/mine/secrets/broker.crt",
            "-noout",
            "-checkhost",
            url.hostname or "",
        ],
        cwd=manifests.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "does match" in named.stdout
    (plane,) = [one for one in objects(manifests) if one["kind"] == "Deployment"]
    pod = plane["spec"]["template"]["spec"]
    file = Path(given["DEVICE_CA_FILE"])
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["mountPath"] == str(file.parent)]
    (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
    assert file.name in [one["path"] for one in volume["secret"]["items"]]


def test_only_the_control_plane_reaches_the_services_listener(manifests: Path) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in objects(manifests) if one["kind"] == "NetworkPolicy"}
    assert policies["default-deny"]["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = [one for one in policies["broker"]["ingress"] if one["ports"][0]["port"] == "services"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "control-plane"


def test_names_resolve_in_any_cluster_domain(manifests: Path) -> None:
    """On a pod of kube-system, on a cache of the node, on OpenShift's port."""
    policies = [one["spec"] for one in objects(manifests) if one["kind"] == "NetworkPolicy"]
    names = [{"protocol": protocol, "port": port} for port in (53, 5353) for protocol in ("UDP", "TCP")]
    asking = [spec for spec in policies if {"ports": names} in spec.get("egress", ())]
    components = [spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for spec in asking]
    assert sorted(components) == ["control-plane", "migrations"]


def test_the_example_offers_a_way_to_another_store_and_to_a_pods_identity(manifests: Path) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in objects(manifests) if one["kind"] == "NetworkPolicy"}
    more = policies["control-plane-egress"]
    assert more["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "control-plane"}
    assert [rule["ports"][0]["port"] for rule in more["egress"]] == [9000, 80]
    assert "169.254.170.23/32" in [one["ipBlock"]["cidr"] for one in more["egress"][1]["to"]]


def objects(manifests: Path) -> list[dict[str, Any]]:
    """Everything that was rendered."""
    return list(yaml.safe_load_all(manifests.read_text()))
