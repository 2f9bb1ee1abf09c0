"""No program of this repository starts with a credential that its reader knows.

Rule: the shipped files are read, and the object store of the demo is asked with the credentials that others ship.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError

from broker import access
from control_plane.adapters.folder_store import FolderObjectStore, start_folder_store

ROOT: Final = Path(__file__).parents[3]
COMPOSE: Final = ("docker-compose.yml", "docker-compose.prod.yml", "deploy/production/postgres.yml")
SECRET: Final = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY")
EMPTY: Final = re.compile(r"|\$\{[A-Z_]+:-\}")
"""No value, or a variable of the caller without a default."""

KNOWN: Final = ("test", "admin", "minioadmin", "password", "secret", "changeme", "backhaul", "control-plane")
SHIPPED: Final = ("*.yml", "*.yaml", "*.conf", "*.env", "Dockerfile*", "Caddyfile", "*.toml", "*.service", "*.path")


def settings_of(document: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """Every `NAME: value` and `{name: NAME, value: …}` of a YAML document."""
    if isinstance(document, dict):
        if isinstance(document.get("name"), str) and isinstance(document.get("value"), str):
            yield document["name"], document["value"]
        for name, value in document.items():
            if isinstance(value, str):
                yield name, value
            yield from settings_of(value)
    elif isinstance(document, list):
        for one in document:
            if isinstance(one, str) and "=" in one:
                name, _, value = one.partition("=")
                yield name, value
            yield from settings_of(one)


@pytest.mark.parametrize("name", [*COMPOSE, *map(str, sorted((ROOT / "deploy/kubernetes").rglob("*.yaml")))])
def test_a_file_of_a_deployment_names_files_with_secrets_and_no_secret(name: str) -> None:
    documents = list(yaml.safe_load_all((ROOT / name).read_text()))
    values = {key: value for key, value in settings_of(documents) if SECRET.search(key) and key.isupper()}
    known = {key: value for key, value in values.items() if not key.endswith("_FILE") and not EMPTY.fullmatch(value)}
    assert known == {}
    assert all(
        value.startswith(("/run/secrets/", "/credentials/")) for key, value in values.items() if key[-5:] == "_FILE"
    )


@pytest.mark.parametrize("name", COMPOSE[:2])
def test_each_program_of_a_compose_file_has_the_credentials_of_its_own_account_alone(name: str) -> None:
    """`enroll` and `devices` write one account to each volume; what mounts it is named, and no other program has it."""
    services = yaml.safe_load((ROOT / name).read_text())["services"]
    readers: dict[str, set[str]] = {}
    for service, given in services.items():
        for mount in given.get("volumes", ()):
            volume, target = mount.split(":")[:2]
            if target.startswith("/credentials/"):
                readers.setdefault(volume, set()).add(service)
    wanted = {
        "server-credentials": {"enroll", "server"},
        "client-credentials": {"devices", "client"},
        # Who has the key of the root decides whom the devices obey: not even the control plane has it.
        "root-of-trust": {"devices"},
        # The account of the object store: the store, and the control plane that signs URLs.
        "object-store-credentials": {"enroll", "server", "s3"},
    }
    assert readers == {volume: wanted[volume] for volume in readers}
    accounts = [one.partition("=") for one in services["enroll"]["command"] if "=/credentials/" in one]
    assert len({directory for _, _, directory in accounts}) == len(accounts) >= 1


def test_two_accounts_never_share_a_password_file(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "deploy/containers/enroll"), f"till-1={tmp_path}", f"till-2={tmp_path}/."]
    environment = {"PYTHONPATH": str(ROOT), "BROKER_ACCESS": str(tmp_path / "access")}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert "two accounts would have one directory" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_shipped_file_assigns_a_known_credential() -> None:
    words = "|".join(KNOWN)
    name = r"(?:password|secret|token|access_key(?:_id)?|secret_key)[\"']?\s*[:=]\s*"
    assigned = re.compile(rf"{name}[\"']?(?:{words})\b", re.IGNORECASE)
    literal = re.compile(rf"{name}[\"'](?:{words})[\"']", re.IGNORECASE)
    files = [path for pattern in SHIPPED for path in (*ROOT.glob(pattern), *(ROOT / "deploy").rglob(pattern))]
    modules = [
        path for package in ("broker", "device_agent", "control_plane") for path in (ROOT / package).rglob("*.py")
    ]
    assert len(files) > 20
    assert [str(path) for path in files if assigned.search(path.read_text())] == []
    assert [str(path) for path in modules if literal.search(path.read_text())] == []
    assert assigned.search("AWS_SECRET_ACCESS_KEY: test")
    assert literal.search('password = "test"')


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderObjectStore]:
    with start_folder_store(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.mark.parametrize(
    "pair", [("test", "test"), ("minioadmin", "minioadmin"), ("admin", "password"), ("nanio", "nanio")]
)
def test_the_object_store_of_the_demo_refuses_the_credentials_that_others_ship(
    store: FolderObjectStore, pair: tuple[str, str]
) -> None:
    with pytest.raises(ClientError) as refused:
        buckets(store.endpoint, pair)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    own = store.credentials
    assert isinstance(buckets(store.endpoint, (own.access_key, own.secret_key)), list)


def buckets(endpoint: str, pair: tuple[str, str]) -> list[Any]:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=pair[0],
        aws_secret_access_key=pair[1],
        config=Config(retries={"max_attempts": 0}, proxies={}),
    )
    return list(client.list_buckets()["Buckets"])


def test_two_sites_have_no_password_in_common(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    made = [access.enroll_service(tmp_path / name, "control-plane") for name in ("one", "two")]
    made += [access.enroll(tmp_path / name, "restaurant-1") for name in ("one", "two")]
    assert len({one.password for one in made}) == len(made)
    assert all(len(one.password) >= 32 for one in made)
