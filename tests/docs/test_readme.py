"""The README is correct: its figures and settings are those of the code, and its commands work.

Rule: the commands run unchanged, one after the other in one shell; only the ports are replaced by free ones, since
those of the README may be in use. Where Docker is installed, tests/e2e/test_containers_quick_start.py runs the commands
of the section on Docker.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from benchmarks.table import markdown
from broker.server import free_port
from tests.docs.generated import AGENT_SETTINGS, CONTROL_PLANE_SETTINGS, README, ROOT, SETTINGS
from tests.support.engine_guide import blocks, quick_start, without_docker

pytestmark = pytest.mark.slow

PATIENCE: Final = 120


def test_the_figures_are_those_of_the_stored_results() -> None:
    """`python -m benchmarks.table README.md` writes them."""
    assert markdown() in README.read_text()


def test_every_setting_has_a_meaning() -> None:
    """The tables hold every setting, and no other row."""
    assert len(CONTROL_PLANE_SETTINGS) + len(AGENT_SETTINGS) == len(
        re.findall(r"^\| `[A-Z_0-9]+` \|", SETTINGS.read_text(), re.MULTILINE)
    )


def test_every_make_target_that_is_named_exists() -> None:
    """tests/e2e/test_demo.py runs `make demo`; `make test-all` begins with the tests of `make test`."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", README.read_text()))
    assert {"demo", "test"} <= named <= targets


def test_every_command_is_run_with_docker_or_without() -> None:
    """Exactly one of the two tests runs each command."""
    every = blocks(README.read_text())
    assert sorted(every) == sorted(quick_start() + without_docker())
    assert [block for block in every if ("docker" in block) and block not in quick_start()] == []
    assert len(quick_start()) > 1 < len(without_docker())


@pytest.mark.timeout(PATIENCE + 30)
@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto-clients is not installed")
def test_every_command_of_the_readme_works(tmp_path: Path) -> None:
    """In order, in one shell; the first command that fails ends the shell."""
    ports = {"8080": free_port(), "1883": free_port(), "9000": free_port()}
    script = "\n".join(without_docker())
    script = script.replace("--data ./site", "--data ./site --port 8080 --mqtt-port 1883 --store-port 9000")
    script = script.replace("mosquitto_pub -V 5", "mosquitto_pub -V 5 -p 1883")
    for written, free in ports.items():
        script = re.sub(rf"\b{written}\b", str(free), script)
    environment = {
        **{name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BACKHAUL_URL": f"http://127.0.0.1:{ports['8080']}",
    }
    with (tmp_path / "out.log").open("w") as out:
        shell = subprocess.Popen(
            ["bash", "-euxo", "pipefail", "-c", script],
            cwd=tmp_path, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(PATIENCE)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
    assert code == 0, (tmp_path / "out.log").read_text()[-4000:]
