"""The accounts of the broker in Kubernetes: Mosquitto 2.1 refuses a password file that is a link.

Rule: the command of the manifest runs here, on files as a Secret mounts them.
"""

import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

MANIFEST = Path(__file__).parents[2] / "deploy" / "kubernetes" / "base" / "broker.yaml"
TARGET = "/etc/mosquitto/backhaul"


def pod() -> Any:  # noqa: ANN401 - YAML
    return next(yaml.safe_load_all(MANIFEST.read_text()))["spec"]["template"]["spec"]


def test_the_broker_reads_its_accounts_from_files_and_not_from_links(tmp_path: Path) -> None:
    source, target = tmp_path / "secret", tmp_path / "copied"
    (source / "..data").mkdir(parents=True)
    target.mkdir()
    for name in ("passwords", "acl"):
        (source / "..data" / name).write_text(f"{name}\n")
        (source / name).symlink_to(f"..data/{name}")
    (init,) = pod()["initContainers"]
    script = init["command"][-1].replace("/run/accounts", str(source)).replace(TARGET, str(target))
    subprocess.run([*init["command"][:-1], script], check=True, timeout=60)
    copied = {path.name: (path.is_symlink(), stat.S_IMODE(path.lstat().st_mode)) for path in target.iterdir()}
    assert copied == {"passwords": (False, 0o600), "acl": (False, 0o600)}


def test_no_secret_is_mounted_where_the_broker_reads_its_accounts() -> None:
    volumes = {one["name"]: one for one in pod()["volumes"]}
    (container,) = pod()["containers"]
    (mounted,) = [one["name"] for one in container["volumeMounts"] if one["mountPath"] == TARGET]
    assert "emptyDir" in volumes[mounted]
