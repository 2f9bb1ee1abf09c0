"""The agent's log: a reader that stalls, or a stream that is closed, stops nothing.

The kind: a write that waits for another program, in the thread that does the work. Real processes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker.process import Broker
from schemas.messages import HealthCheck
from schemas.values import Action
from tests.support.agent_process import AgentProcess, Owner, mosquitto

__all__ = ["mosquitto"]

PIPE_SIZE = 65_536


@pytest.mark.parametrize("log", ["stalled", "closed"])
def test_an_agent_whose_log_nobody_reads_works_on(mosquitto: Broker, tmp_path: Path, log: str) -> None:
    """It writes several times what the pipe holds, answers all the same, and ends in order."""
    agent = AgentProcess(f"log-{log}", tmp_path, mosquitto.address.port)
    agent.data.mkdir()
    reader, writer = os.pipe()
    if log == "closed":
        os.close(reader)
    # The agent limits its own lines, so a thread of the test writes through its log.
    program = (
        "import logging, sys, threading\n"
        "from device_agent.__main__ import main\n"
        "ended = threading.Event()\n"
        "def noise():\n"
        "    while not ended.wait(0.001):\n"
        "        if logging.root.handlers:\n"
        "            logging.getLogger('device_agent.noise').warning('x' * 1000)\n"
        "thread = threading.Thread(target=noise)\n"
        "thread.start()\n"
        "code = main(sys.argv[1:])\n"
        "ended.set()\n"
        "thread.join()\n"
        "sys.exit(code)\n"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "CLIENT_ID": agent.client_id,
        "MQTT_URL": f"mqtt://127.0.0.1:{agent.port}",
        "ALLOWED_ROOTS": str(agent.data),
        "STATE_DIR": str(tmp_path / "state"),
    }
    command = [sys.executable, "-c", program, "--env-file", str(tmp_path / "none.env")]
    agent.process = subprocess.Popen(command, env=environment, stderr=writer, cwd=Path(__file__).parents[2])
    os.close(writer)
    try:
        with Owner(agent.port, agent.client_id) as owner:
            owner.online()
            for number in range(200):
                asked = owner.send(HealthCheck(), Action.HEALTH_CHECK, f"h{number}")
                owner.until(lambda asked=asked: any(one.message_id == asked for one in owner.responses))  # type: ignore[misc]
        assert agent.terminate() == 0
    finally:
        agent.kill()
    if log == "stalled":
        assert len(os.read(reader, 2 * PIPE_SIZE)) >= PIPE_SIZE // 2
        os.close(reader)
