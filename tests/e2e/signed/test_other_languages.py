"""A command that another program signs: `openssl` makes the signature, `mosquitto_pub` publishes it.

Rule: nothing of the product builds or signs the command; the lines are those of docs/protocol.md section 11.1.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.engine_guide import blocks
from tests.support.signed_fleet import SignedFleet, entry_of
from tests.support.sites import running_fleet, sha256_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto-clients is not installed"),
]

NAME: Final = "restaurant-1"
"""As the document names the device."""

PROTOCOL: Final = Path(__file__).parents[3] / "docs" / "protocol.md"


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignedFleet]:
    home = tmp_path_factory.mktemp("openssl")
    (home / "data").mkdir()
    (home / "data" / "one.bin").write_bytes(os.urandom(100_000))
    with running_fleet(home) as fleet:
        signed = SignedFleet(fleet)
        signed.enroll(NAME)
        fleet.attach(NAME, home / "data" / "one.bin", ALLOWED_ROOTS=str(home / "data"))
        yield signed


def typed(script: str, folder: Path) -> str:
    """What a block of the document prints, typed in this folder by someone with an account at the broker."""
    env = {**os.environ, "XDG_CONFIG_HOME": str(folder)}
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_a_command_that_openssl_signed_is_obeyed(signed: SignedFleet, tmp_path: Path) -> None:
    """The lines of the document: the key, the bytes, the signature, two user properties."""
    fleet = signed.fleet
    makes_a_key, commands = blocks(PROTOCOL.read_text())
    address = fleet.site.broker.address
    for program in ("mosquitto_sub", "mosquitto_pub"):
        (tmp_path / program).write_text(f"-h {address.host}\n-p {address.port}\n")

    public = typed(makes_a_key, tmp_path)
    signed.publish(entry_of(signed.own), entry_of(public, "openssl", "cli-*"))
    fleet.until(lambda: bool(fleet.get(f"/clients/{NAME}")["keys_version"] == 2), "the agent to report the list")
    typed(commands, tmp_path)

    fleet.until(
        lambda: any(one["upload_id"] == "by-openssl" for one in fleet.get("/uploads")["uploads"]), "the adoption"
    )
    ended = fleet.ended("by-openssl")
    assert ended["state"] == "completed", ended
    assert fleet.stored_sha256("by-openssl") == sha256_of(fleet.directory / "data" / "one.bin")
