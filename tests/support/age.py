"""Identities of age, and Debian's `age` that opens what was sealed for them.

Rule: the other implementation decides: no test opens a sealed file with code of this project.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Identity:
    """A secret key in a file, and the recipient that belongs to it."""

    path: Path
    recipient: str

    def opened(self, sealed: bytes) -> bytes:
        """What `age -d` makes of it; `CalledProcessError` when it refuses."""
        command = ["age", "--decrypt", "--identity", str(self.path)]
        return subprocess.run(command, input=sealed, capture_output=True, check=True, timeout=60).stdout


def new_identity(folder: Path, name: str = "identity") -> Identity:
    """A new identity in `folder`; the test is skipped without age."""
    if shutil.which("age") is None or shutil.which("age-keygen") is None:
        pytest.skip("age is not installed: run `apt-get install age`")
    path = folder / f"{name}.txt"
    subprocess.run(["age-keygen", "-o", str(path)], capture_output=True, check=True, timeout=60)
    shown = subprocess.run(["age-keygen", "-y", str(path)], capture_output=True, check=True, timeout=60, text=True)
    return Identity(path, shown.stdout.strip())
