"""The control plane behind nginx and Caddy, with the configurations of docs/how-to/behind-a-proxy.md.

Rule: only names of files, addresses and ports of a configuration are replaced. Without the proxy a test is skipped.
"""

import json
import os
import re
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from broker.child_process import ChildProcess
from broker.server import free_port
from tests.support.self_signed import self_signed
from tests.support.sites import Fleet, running_fleet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TEXT: Final = (Path(__file__).parents[2] / "docs/how-to/behind-a-proxy.md").read_text()
NAME: Final = "backhaul.example.com"
PATIENCE: Final = 60.0


def config(kind: str) -> str:
    """The configuration of the document for one proxy."""
    found = re.search(rf"^```{kind}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(name="fleet")
def _fleet(tmp_path: Path) -> Iterator[Fleet]:
    settings = {"ALLOWED_HOSTS": NAME, "TRUSTED_PROXIES": "1", "JWT_SECRET": "", "AUTH": "off"}
    with running_fleet(tmp_path / "fleet", settings) as fleet:
        fleet.attach("till-1", ALLOWED_ROOTS=str(tmp_path))
        yield fleet


@contextmanager
def nginx(fleet: Fleet, home: Path, program: str) -> Iterator[int]:
    """Nginx with the server of the document; its port."""
    home.mkdir()
    pem = self_signed(home)
    port = free_port()
    server = config("nginx").replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    server = re.sub(r"/etc/ssl/backhaul\.(crt|key)", str(pem), server)
    server = server.replace("http://127.0.0.1:8080", fleet.site.server)
    folders = "".join(
        f"{name}_temp_path {home}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = f"daemon off; pid {home}/pid; events {{}} http {{ access_log off; {folders}\n{server}}}"
    (home / "nginx.conf").write_text(whole)
    command = [program, "-e", "stderr", "-p", str(home), "-c", str(home / "nginx.conf")]
    with ChildProcess(command, home / "nginx.log"):
        yield port


@contextmanager
def caddy(fleet: Fleet, home: Path, program: str) -> Iterator[int]:
    """Caddy with the site of the document and its own authority; its port."""
    home.mkdir()
    port = free_port()
    own = f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n\thttps_port {port}\n}}\n"
    site = config("caddy").replace(f"{NAME} {{", f"https://{NAME}:{port} {{\n\ttls internal\n\tbind 127.0.0.1")
    (home / "Caddyfile").write_text(own + site.replace("127.0.0.1:8080", fleet.site.server.removeprefix("http://")))
    settings = {"HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    command = [program, "run", "--adapter", "caddyfile", "--config", str(home / "Caddyfile")]
    with ChildProcess(command, home / "caddy.log", settings=settings):
        yield port


PROXIES: Final = {"nginx": nginx, "caddy": caddy}


@pytest.mark.parametrize("kind", PROXIES)
def test_calls_and_events_pass_the_proxy_of_the_document(kind: str, fleet: Fleet, tmp_path: Path) -> None:
    program = shutil.which(kind, path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip(f"{kind} is not installed")
    file = tmp_path / "a.txt"
    file.write_text("proxied")
    with PROXIES[kind](fleet, tmp_path / kind, program) as port, caller(port) as http:
        fleet.until(lambda: answers(http), f"{kind}")
        assert http.get("/clients").json()["count"] == 1
        with http.stream("GET", "/events") as events:
            lines = events.iter_lines()
            upload_id = http.post("/trigger-download/till-1", json={"file_path": str(file)}).json()["upload_id"]
            found = next(one for one in map(event, lines) if one.get("upload_id") == upload_id)
        assert found["client_id"] == "till-1"
        assert fleet.ended(upload_id)["state"] == "completed"
        wrong = http.get("/clients", headers={"Host": "other.example.com"}) if kind == "nginx" else None
        assert wrong is None or wrong.status_code in {421, 404}


def caller(port: int) -> httpx.Client:
    """A caller of the public name, at the proxy's address."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return httpx.Client(
        base_url=f"https://127.0.0.1:{port}", verify=context, headers={"Host": NAME}, timeout=PATIENCE,
        transport=Named(verify=context),
    )  # fmt: skip


class Named(httpx.HTTPTransport):
    """Names the host in the TLS handshake, as a browser does."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = NAME
        return super().handle_request(request)


def answers(http: httpx.Client) -> bool:
    """Whether the proxy and the control plane answer."""
    try:
        return http.get("/health").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def event(line: str) -> dict[str, str]:
    """The facts of a line of the stream; none of a line that has no data."""
    if not line.startswith("data:"):
        return {}
    facts: dict[str, str] = json.loads(line.removeprefix("data:"))
    return facts
