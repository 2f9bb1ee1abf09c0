"""`make-secrets` and `object-store-account` of deploy/: existing files are kept, and missing ones are reported.

Rule: no engine is needed here, but openssl.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.engine_stack import ROOT, digest

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

HOST: Final = "backhaul.example.com"
AUTHORITIES: Final = ("broker-ca.key", "services-ca.key")


def make(directory: Path, host: str = HOST, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run it as it is run by hand."""
    command = [str(ROOT / "deploy/production/make-secrets"), host, *options, str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def contents(directory: Path) -> dict[str, str]:
    """Each file, by a digest."""
    return {path.name: digest(path) for path in directory.iterdir()}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What one run makes."""
    directory = tmp_path / "secrets"
    assert make(directory).returncode == 0
    return directory


def test_the_created_files_are_readable_by_their_owner_only(made: Path) -> None:
    assert made.stat().st_mode & 0o777 == 0o700
    assert [name for name in AUTHORITIES if (made / name).stat().st_mode & 0o077] == []


def test_authorities_whose_keys_were_moved_away_are_kept(made: Path) -> None:
    for name in AUTHORITIES:
        (made / name).unlink()
    before = contents(made)
    again = make(made)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert contents(made) == before


def test_a_control_plane_of_a_cluster_has_a_certificate_and_one_of_compose_needs_none(made: Path) -> None:
    """A key that nothing uses would only be one more that can leak."""
    assert not (made / "control-plane.key").exists()
    more = make(made, HOST, "--kubernetes")
    assert (more.returncode, more.stdout) == (0, "made control-plane.key\nmade control-plane.crt\n")
    assert (made / "control-plane.key").stat().st_mode & 0o777 == 0o600
    unknown = make(made, HOST, "--kubernets")
    assert (unknown.returncode, unknown.stderr) == (2, "there is no option --kubernets\n")


def test_a_certificate_without_its_authority_is_reported_as_missing(made: Path) -> None:
    for name in ("services-ca.key", "operator.crt"):
        (made / name).unlink()
    again = make(made)
    assert (again.returncode, again.stderr) == (0, "operator.crt is not made: services-ca.key is not here\n")
    for name in ("broker-ca.key", "broker.crt"):
        (made / name).unlink()
    again = make(made)
    assert again.returncode == 1
    assert "broker.crt is not made: broker-ca.key is not here\n" in again.stderr


def test_a_certificate_of_ones_own_needs_its_authority_and_the_names(made: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in ("broker.crt", "broker.key"):
        shutil.copy(made / name, own)
    first = make(own, "elsewhere.example.com")
    assert first.returncode == 0
    assert "broker-ca.crt is missing" in first.stderr
    assert "broker.crt is not for elsewhere.example.com" in first.stderr
    assert "broker.crt is not for broker-services" not in first.stderr
    assert not (own / "broker-ca.key").exists()
    shutil.copy(made / "broker-ca.crt", own)
    assert make(own).stderr == ""


def test_the_object_store_of_the_first_try_gets_random_credentials_once(tmp_path: Path) -> None:
    """A default password is known to every page that rebinds a name, and to every other program of the machine."""
    made: list[dict[str, str]] = []
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        for _ in range(2):
            subprocess.run([str(ROOT / "deploy/containers/object-store-account"), str(directory)], check=True)
            made.append({path.name: path.read_text() for path in directory.iterdir()})
            assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o640}
    assert made[0] == made[1]
    assert {name: len(text) for name, text in made[0].items()} == {"access_key_id": 20, "secret_access_key": 40}
    assert set(made[0].values()).isdisjoint(made[2].values())


@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-compose.prod.yml", ".env.example"])
def test_no_credentials_of_an_object_store_are_in_a_file(file: str) -> None:
    assert re.findall(r"\w*(?:ACCESS_KEY|SECRET_KEY)\w*[:=] *[^/\s].*", (ROOT / file).read_text()) == []
