"""Agents as child processes, each with its folder and a real file: the fleet of `backhaul demo`.

Rule: the settings of an agent come from its environment and are those of any device.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.child_process import ChildProcess, python_program
from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.rest.devices.bundle_file import write_bundle
from control_plane.cli.text import MIB

FLEET: Final = (
    ("restaurant-1", "daily-sales.bin", 1 * MIB),
    ("restaurant-2", "till-backup.bin", 25 * MIB),
    ("restaurant-3", "Küchenkamera, Tür.bin", 100 * MIB),
)
"""Client id, file name and size (bytes) of each device; one file name has letters beyond ASCII."""

LOGS: Final = ("till.log", "till.log.1")
"""Names of the logs that each device has: the files of the demo's job."""

LOG_TYPE: Final = "logs"
"""The file type under which an agent offers them: the job names no path of a device."""

_LOG_SIZE: Final = 64 * 1024
_AGENT: Final = python_program("device_agent", "--config-dir", ".")
"""It reads the folder of its log, which has no settings, and none of an agent that this machine has for itself."""


@dataclass(frozen=True, slots=True)
class DemoDevice:
    """One device: its agent may read its folder only."""

    client_id: str
    directory: Path
    file: Path
    file_size: int

    @property
    def data(self) -> Path:
        """The folder with its files."""
        return self.file.parent

    @property
    def logs(self) -> list[Path]:
        """Its logs."""
        return [self.data / "logs" / name for name in LOGS]

    def enroll(self, plane: ControlPlane, site: Mapping[str, str]) -> None:
        """Get its bundle; `site` has the addresses of broker and object store."""
        body = {
            "client_id": self.client_id,
            "file_path": str(self.file),
            "allowed_roots": [str(self.data)],
            "upload_hosts": [site["UPLOAD_HOSTS"]],
            "labels": {"site": self.client_id, "demo": "yes"},
        }
        write_bundle(self.bundle, plane.call("POST", "/devices", json=body))

    @property
    def bundle(self) -> Path:
        """The file of its bundle."""
        return self.directory / "bundle.json"

    def settings(self, site: Mapping[str, str]) -> dict[str, str]:
        """The environment of its agent: what its bundle does not have. Without one, `site` has the addresses."""
        own = {"TYPES": f"{LOG_TYPE}={self.data}/logs/*", "STATE_DIR": str(self.directory / "state")}
        if self.bundle.exists():
            return {**own, "BUNDLE_FILE": str(self.bundle)}
        return {
            **own,
            "CLIENT_ID": self.client_id,
            "FILE_PATH": str(self.file),
            "ALLOWED_ROOTS": str(self.data),
            "LABELS": f"site={self.client_id},demo=yes",
            **site,
        }

    def start(self, site: Mapping[str, str], logs: Path) -> ChildProcess:
        """Run its agent."""
        return ChildProcess(_AGENT, settings=self.settings(site), log_path=logs / f"{self.client_id}.log")


def make_devices(directory: Path) -> list[DemoDevice]:
    """A folder for each device of `FLEET`, with a file and logs of random bytes in it."""
    devices = []
    for client_id, name, file_size in FLEET:
        home = directory / client_id
        file = home / "data" / name
        device = DemoDevice(client_id, home, file, file_size)
        (device.data / "logs").mkdir(parents=True)
        _fill(file, file_size)
        for log in device.logs:
            _fill(log, _LOG_SIZE)
        devices.append(device)
    return devices


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fill(path: Path, file_size: int) -> None:
    with path.open("wb") as file:
        for written in range(0, file_size, MIB):
            file.write(os.urandom(min(MIB, file_size - written)))
