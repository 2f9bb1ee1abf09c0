"""The package of another processor, installed and run under emulation: one real upload.

Rule: the processor's own dpkg, shell and Python run; there is no systemd, so the unit's command is started by hand.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broker.process import Broker
from tests.support.agent_packages import built
from tests.support.agent_process import Owner, begin, bodies, grant, mosquitto, sink, wanted
from tests.support.crash_points import kill_children
from tests.support.debian_machine import Debian, emulated
from tests.support.debian_roots import debian_root
from tests.support.put_sink import PutSink

__all__ = ["mosquitto", "sink"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLIENT: Final = "pi-1"
PATIENCE: Final = 90.0
# RFC 8032, section 7.1, test 2.
SEED: Final = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
SIGNATURE: Final = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)
SIGNS: Final = f"""
import sys
sys.path.insert(0, "/usr/lib/backhaul-agent/lib")
from schemas.signing.ed25519 import Signer
signer = Signer(bytes.fromhex("{SEED}"))
signature = signer.sign_bytes(b"\\x72")
assert signer.verifier.verifies_bytes(signature, b"\\x72")
import nacl
print(signature.hex(), nacl.__file__)
"""
"""By the module that the agent signs with; prints also whose PyNaCl it is."""

PYNACL: Final = {
    "arm64": "/usr/lib/backhaul-agent/lib/nacl/__init__.py",
    # The index has no wheel of it for armhf: Debian's.
    "armhf": "/usr/lib/python3/dist-packages/nacl/__init__.py",
}
MACHINES: Final = {"arm64": "aarch64", "armhf": "armv7l"}


# Its C code is compiled under emulation, which takes minutes of both processors: for a release, not for every change.
TESTED: Final = list(MACHINES) if os.environ.get("BACKHAUL_TEST_ARMHF") else ["arm64"]


@pytest.fixture(params=TESTED)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def device(architecture: str) -> Iterator[Debian]:
    with debian_root("bookworm", architecture) as root:
        yield emulated(root, architecture)


def test_a_package_of_another_processor_is_installed_and_uploads_under_emulation(
    device: Debian, architecture: str, mosquitto: Broker, sink: PutSink, tmp_path: Path
) -> None:
    """Msgspec is compiled for armhf here: its index has no wheel."""
    deb = built(f"deb12-{architecture}")
    shutil.copy(deb, device.folder / "root")
    assert device.run("uname", "-m").strip() == MACHINES[architecture]
    printed = device.run("dpkg", "-i", f"/root/{deb.name}")
    assert "sudo backhaul-agent setup" in printed
    assert device.run("python3", "-IBc", SIGNS).split() == [SIGNATURE, PYNACL[architecture]]
    text = f"""
client_id = "{CLIENT}"
mqtt_url = "mqtt://127.0.0.1:{mosquitto.address.port}"
allowed_roots = ["/srv"]
upload_hosts = ["{sink.host_port}"]
"""
    device.write("/etc/backhaul/agent.d/50-local.toml", text)
    device.write("/srv/sales.csv", "1,2\n")
    log = tmp_path / "agent.log"
    as_its_user = ("setpriv", "--reuid=backhaul-agent", "--regid=backhaul-agent", "--init-groups")
    agent = device.start(log, *as_its_user, "backhaul-agent")
    try:
        with Owner(mosquitto.address.port, CLIENT) as owner:
            owner.until(lambda: any(one.status == "online" for one in owner.presences), PATIENCE)
            assert owner.presences[-1].agent.arch == MACHINES[architecture], log.read_text()
            begin(owner, Path("/srv/sales.csv"))
            grant(owner, sink, wanted(owner.answer("u1", 1, PATIENCE)), 1)
            end = owner.answer("u1", 2, PATIENCE)
    finally:
        # The first process of its namespace: all the others end with it.
        kill_children(agent.pid)
        agent.wait()
    assert (end.status, bodies(sink)) == ("success", {1: b"1,2\n"})
