"""`deploy/containers/connected`: the health check of the agent's container finds the connection to the broker.

Rule: the shell script is run as the image runs it, beside a connection of this machine.
"""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PROGRAM: Final = Path(__file__).parents[2] / "deploy/containers/connected"


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server to which this process is connected."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", number)):
            yield number


def healthy(**environment: str) -> bool:
    """Whether the check succeeds."""
    given = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run([str(PROGRAM)], env=given, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("indent", [None, 2])
def test_the_broker_is_that_of_the_setting_else_that_of_the_bundle(
    tmp_path: Path, port: int, indent: int | None
) -> None:
    bundle = tmp_path / "bundle.json"
    text = {"client_id": "restaurant-1", "mqtt_url": f"mqtt://127.0.0.1:{port}", "mqtt_password": "secret"}
    bundle.write_text(json.dumps(text, indent=indent))
    assert healthy(MQTT_URL=f"mqtt://127.0.0.1:{port}")
    assert healthy(BUNDLE_FILE=str(bundle))
    # The setting counts before the bundle, as for the agent.
    assert not healthy(MQTT_URL="mqtt://127.0.0.1:1", BUNDLE_FILE=str(bundle))


def test_without_a_connection_to_that_port_it_fails(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.json"
    bundle.write_text(json.dumps({"mqtt_url": "mqtts://127.0.0.1:1"}))
    assert not healthy(BUNDLE_FILE=str(bundle))
