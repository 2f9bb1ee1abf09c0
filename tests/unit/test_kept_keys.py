"""What the production files do for keys: they lie where they outlive a container.

A control plane whose signing key is new at each start would call every earlier receipt a mismatch.
"""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from control_plane import bootstrap
from control_plane.settings import Settings

ROOT: Final = Path(__file__).parents[2]
SQLITE: Final = "sqlite:////var/lib/backhaul/backhaul.db"
POSTGRES: Final = "postgresql://backhaul:secret@postgres:5432/backhaul"
PRODUCTION: Final = ("docker-compose.prod.yml",)
SITES: Final = (
    (("docker-compose.yml",), SQLITE),
    (PRODUCTION, SQLITE),
    (PRODUCTION, POSTGRES),
    ((*PRODUCTION, "deploy/production/postgres.yml"), POSTGRES),
)
KEYS: Final = {"SIGNING_KEY_FILE": bootstrap.SIGNING_KEY_NAME, "AUDIT_KEY_FILE": bootstrap.AUDIT_KEY_NAME}


def server_of(files: tuple[str, ...]) -> dict[str, Any]:
    """The service `server` of these compose files: its environment, as without `.env`, and its named volumes."""
    environment: dict[str, str | None] = {}
    mounts: list[str] = []
    for name in files:
        server = yaml.safe_load((ROOT / name).read_text("utf-8"))["services"]["server"]
        environment |= server.get("environment", {})
        mounts += server.get("volumes", [])
    # A name without a value is one that `.env` may set.
    texts = {name: text or "" for name, text in environment.items()}
    unset = {name: re.sub(r"\$\{\w+(?::-([^}]*))?[^}]*\}", r"\1", text) for name, text in texts.items()}
    named = [mount.split(":") for mount in mounts if mount[0] not in "./" and not mount.endswith(":ro")]
    return {"environment": unset, "kept": [Path(parts[1]) for parts in named]}


@pytest.mark.parametrize(("files", "database"), SITES, ids=str)
@pytest.mark.parametrize("setting", KEYS)
def test_a_key_of_a_container_lies_on_a_volume_that_outlives_it(
    files: tuple[str, ...], database: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_of(files)
    image = (ROOT / "deploy/Dockerfile.server").read_text("utf-8")
    (home,) = re.findall(r"--home-dir (\S+)", image)
    monkeypatch.setenv("HOME", server["environment"].get("HOME", home))
    monkeypatch.setenv("XDG_DATA_HOME", server["environment"].get("XDG_DATA_HOME", ""))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    settings = Settings.load({"DATABASE_URL": database})
    place = bootstrap._key_place(settings, server["environment"].get(setting) or None, KEYS[setting])
    assert any(place.is_relative_to(folder) for folder in server["kept"])


def test_kubernetes_takes_both_keys_from_a_secret_and_every_setting_from_its_overlay() -> None:
    base = ROOT / "deploy/kubernetes/base"
    documents = yaml.safe_load_all((base / "control-plane.yaml").read_text("utf-8"))
    pod = next(one for one in documents if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    (secret,) = (one["name"] for one in pod["volumes"] if one.get("secret", {}).get("secretName") == "control-plane")
    (folder,) = (Path(one["mountPath"]) for one in server["volumeMounts"] if one["name"] == secret)
    places = {one["name"]: Path(one["value"]) for one in server["env"] if one["name"] in KEYS}
    assert {name: place.parent for name, place in places.items()} == dict.fromkeys(KEYS, folder)
    example = yaml.safe_load((ROOT / "deploy/kubernetes/example/kustomization.yaml").read_text("utf-8"))
    made = {one["name"]: {Path(file).name for file in one["files"]} for one in example["secretGenerator"]}
    assert {place.name for place in places.values()} <= made["control-plane"]
    assert server["envFrom"] == [{"configMapRef": {"name": "control-plane"}}]


def test_a_key_that_ends_with_the_process_is_a_line_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_place(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", no_place)
    lines: list[tuple[str, object]] = []
    key = bootstrap._signing_key(
        Settings.load({"DATABASE_URL": POSTGRES}), lambda event, facts: lines.append((event, facts["set"]))
    )
    assert key.kid
    assert lines == [("key_file.failed", "SIGNING_KEY_FILE")]
