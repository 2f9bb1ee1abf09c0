"""What is built and installed serves the page: every file of it, from the wheel and not from a checkout."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from broker.child_process import ChildProcess
from broker.server import free_port
from control_plane.web import STATIC
from tests.support.patience import came_true
from tests.support.sites import SERVE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOT: Final = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a control plane whose code is the unpacked wheel; its neighbours are away."""
    home = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(home / "dist"))
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=100)
    [wheel] = (home / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home / "installed")
    (home / "installed" / "control_plane" / "web" / "static" / "of-the-wheel.txt").write_text("yes")
    port, nowhere = free_port(), free_port()
    settings = {
        "PYTHONPATH": str(home / "installed"),
        "SERVER_PORT": str(port),
        "DATABASE_URL": f"sqlite:///{home / 'backhaul.db'}",
        "MQTT_URL": f"mqtt://127.0.0.1:{nowhere}",
        "AWS_ENDPOINT": f"http://127.0.0.1:{nowhere}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "s",
        "S3_BUCKET_NAME": "backhaul",
    }
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/health", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    with ChildProcess(SERVE, settings=settings, log_path=home / "control-plane.log") as plane:
        assert came_true(answers, 60), plane.log_tail()
        yield address


def test_an_installed_wheel_serves_the_page_and_every_file_of_it(server: str) -> None:
    with httpx.Client(base_url=server) as browser:
        page = browser.get("/", headers={"Accept": "text/html"})
        assert browser.get("/static/of-the-wheel.txt").text == "yes", "it is the wheel that runs, not the checkout"
        assert page.content == (STATIC / "index.html").read_bytes()
        for path in sorted(path for path in STATIC.rglob("*") if path.is_file()):
            name = path.relative_to(STATIC).as_posix()
            assert browser.get(f"/static/{name}").content == path.read_bytes(), name
