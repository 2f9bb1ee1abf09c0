"""`backhaul-agent.pyz`: what it holds, and that it signs where Python has no PyNaCl.

Rule: run by this machine's Python without any installed package.
"""

import subprocess
import sys
import zipfile
from collections import Counter
from typing import Final

import pytest

from device_agent import VERSION
from tests.support.agent_packages import built

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LARGEST: Final = 11_000_000
"""Bytes of the file."""

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
    python = getattr(sys, "_base_executable", sys.executable)
    command = [python, "-ISc", START + program, str(built("pyz"))]
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
