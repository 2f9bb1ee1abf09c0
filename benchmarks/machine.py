"""What the figures were taken on.

Rule: nothing that names the machine or its owner.
"""

import os
import platform
import re
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

_PACKAGES: Final = (
    "backhaul",
    "aiomqtt",
    "paho-mqtt",
    "boto3",
    "fastapi",
    "uvicorn",
    "sqlalchemy",
    "msgspec",
)


def describe() -> dict[str, Any]:
    """Machine, versions, and how busy it was."""
    return {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": _first(Path("/proc/cpuinfo"), r"model name\s*:\s*(.+)") or platform.processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(int(_first(Path("/proc/meminfo"), r"MemTotal:\s*(\d+)") or 0) / 2**20, 1),
            "sha_extensions": "sha_ni" in Path("/proc/cpuinfo").read_text(),
            "kernel": platform.release(),
            "system": _first(Path("/etc/os-release"), r'PRETTY_NAME="(.+)"') or platform.system(),
            "load": [round(load, 2) for load in os.getloadavg()],
        },
        "versions": {
            "python": platform.python_version(),
            "mosquitto": _version_of("mosquitto", "-h"),
            "rclone": _version_of("rclone", "version"),
            **{name: _installed(name) for name in _PACKAGES},
        },
    }


def _first(path: Path, pattern: str) -> str | None:
    with suppress(OSError):
        if found := re.search(pattern, path.read_text()):
            return found[1].strip()
    return None


def _version_of(*command: str) -> str | None:
    with suppress(OSError):
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if found := re.search(r"\d+\.\d+\.\d+", output):
            return found[0]
    return None


def _installed(name: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(name)
    return None
