"""`backhaul-agent.pyz`: what it holds, and that it signs where Python has no PyNaCl.

Rule: run by this machine's Python without any installed package.
"""

import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from broker.process import Broker
from device_agent import VERSION
from device_agent.trust.identity import open_identity
from device_agent.trust.trust_file import TrustFile
from schemas.topics import Topics
from tests.support.agent_packages import built
from tests.support.agent_process import Owner, mosquitto
from tests.support.signed_fleet import Roots

__all__ = ["mosquitto"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LARGEST: Final = 11_000_000
"""Bytes of the file."""

PYTHON: Final[str] = getattr(sys, "_base_executable", sys.executable)
"""Has no PyNaCl when it is started with -IS."""

START: Final = """
import runpy
import sys

path = sys.argv[1]
sys.argv[1:] = ["--version"]
try:
    runpy.run_path(path, run_name="__main__")
except SystemExit as end:
    assert end.code == 0, end.code
assert not [name for name in sys.modules if name.startswith(("nacl", "_cffi"))], "loaded before anything is signed"
sys.path.insert(0, path)
"""
SIGN: Final = """
from schemas.signing.ed25519 import Signer
import _cffi_backend, nacl
signer = Signer(bytes(32))
signature = signer.sign_bytes(b"1")
print(signer.verifier.verifies_bytes(signature, b"1"), signer.verifier.verifies_bytes(signature, b"2"))
print(nacl.__file__)
print(_cffi_backend.__file__)
"""


def run(program: str) -> list[str]:
    """The lines that a program prints, run after the file, without the packages of this Python."""
    command = [PYTHON, "-ISc", START + program, str(built("pyz"))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_it_holds_each_compiled_module_for_every_python_processor_and_c_library() -> None:
    with zipfile.ZipFile(built("pyz")) as archive:
        names = archive.namelist()
    modules = [name.removeprefix("native/") for name in names if name.endswith(".so")]
    # That of PyNaCl fits every Python.
    assert Counter(name.partition(".")[0].partition("-")[0] for name in modules) == {
        "_core": 16,
        "_cffi_backend": 16,
        "_sodium": 4,
    }
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith((".dist-info", ".py"))} == {
        *("device_agent", "schemas", "msgspec", "paho", "nacl", "native")
    }
    assert built("pyz").stat().st_size < LARGEST


def test_it_signs_with_the_pynacl_that_it_holds_and_loads_it_only_then() -> None:
    version, verdicts, *places = run(SIGN)
    assert version == f"backhaul-agent {VERSION}"
    assert verdicts == "True False"
    assert places[0].startswith(f"{built('pyz')}/")
    assert places[1].startswith("/proc/self/fd/")


def test_with_a_root_of_trust_it_is_online_as_a_signed_agent(mosquitto: Broker, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    TrustFile.store_root(state, Topics().keys(), Roots().root)
    environment = {
        "PATH": os.environ["PATH"],
        "CLIENT_ID": "till-1",
        "MQTT_URL": f"mqtt://127.0.0.1:{mosquitto.address.port}",
        "ALLOWED_ROOTS": str(tmp_path),
        "STATE_DIR": str(state),
    }
    command = [PYTHON, "-IS", str(built("pyz")), "--env-file", str(tmp_path / "none"), "--config-dir", str(tmp_path)]
    with Owner(mosquitto.address.port, "till-1") as owner, (tmp_path / "log").open("wb") as log:
        agent = subprocess.Popen(command, env=environment, stderr=log)
        try:
            owner.until(lambda: any(one.status == "online" for one in owner.presences), 60)
        except AssertionError:
            pytest.fail((tmp_path / "log").read_text())
        finally:
            agent.terminate()
            agent.wait(60)
    assert owner.presences[-1].key == open_identity(state).verifier.text
