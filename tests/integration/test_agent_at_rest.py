"""What an unsigned agent has in its memory at rest: the modules that it has loaded once it is connected.

Rule: the program itself, as its unit starts it; Python prints each import (`-X importtime`).
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from broker.process import Broker
from tests.support.agent_process import PATIENCE, Owner, client_id, mosquitto, owner

__all__ = ["client_id", "mosquitto", "owner"]

NOT_LOADED = frozenset(
    {
        # Of keys, signatures and seals: for a device with a root of trust, or a command that seals.
        *("nacl", "_cffi_backend"),
        *("device_agent.trust.signing", "device_agent.trust.roles", "device_agent.trust.trust_file"),
        *("schemas.signing.documents", "schemas.signing.ed25519", "schemas.signing.enrolment", "schemas.signing.trust"),
        # Of receipts.
        "schemas.receipts.statement",
        # Of people at a terminal.
        *("argparse", "device_agent.diagnosis.doctor", "device_agent.command_line.setup"),
        # The tables of Unicode, for a name of a host that is no ASCII (`schemas.environment`).
        *("encodings.idna", "unicodedata"),
        # Of files that this device does not have.
        "tomllib",
        # A dataclass takes 15 to 30 KiB, a Struct of msgspec 1; the first brings inspect, ast and dis: 1 MiB more.
        "dataclasses",
        # What no agent needs.
        *("asyncio", "multiprocessing", "subprocess", "unittest", "xml", "sqlite3"),
    }
)


def test_an_agent_at_rest_has_loaded_only_what_it_needs(
    mosquitto: Broker, owner: Owner, client_id: str, tmp_path: Path
) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "CLIENT_ID": client_id,
        "MQTT_URL": f"mqtt://127.0.0.1:{mosquitto.address.port}",
        "ALLOWED_ROOTS": str(tmp_path),
        "STATE_DIR": str(tmp_path / "state"),
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-X", "importtime", "-m", "device_agent"]
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=output)
    try:
        owner.online()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    lines = [line for line in log.read_text().splitlines() if line.startswith("import time:")]
    loaded = {line.rpartition("|")[2].strip() for line in lines}
    assert {"paho.mqtt.client", "device_agent.storage.uploader", "ssl"} <= loaded
    assert loaded & NOT_LOADED == set()


@pytest.mark.parametrize(
    "name", sorted(name for name in NOT_LOADED if name.partition(".")[0] in {"device_agent", "schemas"})
)
def test_the_list_names_modules_that_there_are(name: str) -> None:
    path = Path(__file__).parents[2].joinpath(*name.split("."))
    assert path.with_suffix(".py").exists() or path.is_dir()
