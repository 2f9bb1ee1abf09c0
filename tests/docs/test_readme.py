"""The README is correct: its figures are those of the kept results, and its commands work.

Rule: the commands run unchanged, one after the other in one shell; only the ports are replaced by free ones, since
those of the documents may be in use. docs/how-to/one-site.md and without-a-control-plane.md there are one more shell.
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

from benchmarks.table import FIRST_PAGE, markdown
from broker.server import find_mosquitto, free_port
from tests.docs.generated import README, ROOT
from tests.support.engine_guide import blocks

PATIENCE: Final = 120
HOW_TO: Final = ROOT / "docs" / "how-to"
LONGEST: Final = 200


def test_the_figures_are_those_of_the_stored_results() -> None:
    """`python -m benchmarks.table FILE` writes them."""
    assert markdown() in (ROOT / "docs/explanation/figures.md").read_text()
    assert markdown(FIRST_PAGE) in README.read_text()
    assert markdown(FIRST_PAGE).count("| yes |") + markdown(FIRST_PAGE).count("| no |") == len(FIRST_PAGE) == 10


def test_the_first_page_is_short_and_has_a_picture() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= LONGEST
    assert "](docs/images/fleet.png)" in text


def test_every_make_target_that_is_named_exists() -> None:
    """tests/e2e/test_demo.py runs `make demo`; `make test-all` begins with the tests of `make test`."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", README.read_text()))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE + 30)
def test_every_command_of_the_readme_works(tmp_path: Path) -> None:
    """From a site without data to a proven upload and a job of a schedule."""
    found = blocks(README.read_text())
    assert len(found) > 3
    typed(found, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE + 30)
@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto-clients is not installed")
def test_every_command_of_one_site_and_by_hand_works(tmp_path: Path) -> None:
    found = [
        block for name in ("one-site.md", "without-a-control-plane.md") for block in blocks((HOW_TO / name).read_text())
    ]
    assert len(found) > 5
    typed(found, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE + 30)
@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_every_command_of_the_tutorial_works(tmp_path: Path) -> None:
    """Both machines are this one; what installs packages is not typed."""
    text = (ROOT / "docs" / "tutorial.md").read_text().replace("192.0.2.10", "127.0.0.1")
    assert len(blocks(text)) > 5
    typed(blocks(text), tmp_path)
    assert list((tmp_path / "fetched").rglob("report.bin")) != []


def typed(script: list[str], folder: Path) -> None:
    """Run the blocks in order, in one shell; the first command that fails ends the shell."""
    ports = {"8080": free_port(), "1883": free_port(), "9000": free_port()}
    text = "\n".join(script)
    text = text.replace("--data ./site", "--data ./site --port 8080 --mqtt-port 1883 --store-port 9000")
    text = text.replace("mosquitto_pub -V 5", "mosquitto_pub -V 5 -p 1883")
    for written, free in ports.items():
        text = re.sub(rf"\b{written}\b", str(free), text)
    environment = {
        **{name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BACKHAUL_URL": f"http://127.0.0.1:{ports['8080']}",
    }
    with (folder / "out.log").open("w") as out:
        shell = subprocess.Popen(
            # A run of the tests that is killed leaves no loop of the document behind for ever.
            ["timeout", str(PATIENCE + 60), "bash", "-euxo", "pipefail", "-c", text],
            cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(PATIENCE)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
    assert code == 0, (folder / "out.log").read_text()[-4000:]
