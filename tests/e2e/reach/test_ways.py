"""A real agent in a network namespace that allows one way out, and a real upload over it.

Rule: the device's namespace has one route, to one address; where a proxy stands there, no name of a server is known to
the device. Mosquitto, nginx, tinyproxy and the strict object store are real processes.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from broker import configuration
from broker.child_process import ChildProcess
from broker.process import BrokerAddress
from broker.server import find_mosquitto, free_port, start_configured
from tests.support.authorities import Authority
from tests.support.fault_sites import PATIENCE, FaultSite, SiteProcess, running_site
from tests.support.networks import Namespace, Net, link, namespace
from tests.support.patience import came_true
from tests.support.strict_s3 import Operation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

BROKER, STORE = "broker.test", "store.test"
SIZE: Final = 6 * 1024 * 1024
PROXY_PORT: Final = 8888
PATH: Final = f"{os.environ['PATH']}:/usr/sbin"

NGINX: Final = """
daemon off; pid {home}/pid; events {{}}
http {{
    access_log off; {folders}
    client_max_body_size 0; proxy_request_buffering off; proxy_http_version 1.1;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    server {{
        {listen}
        server_name broker.test;
        location = /mqtt {{
            proxy_pass http://127.0.0.1:{websockets};
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 90s;
        }}
    }}
    server {{
        {listen}
        server_name store.test;
        location / {{ proxy_pass {store}; proxy_set_header Host $host; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class World:
    """The servers, at the near end of a link to the namespace of a device, or of a proxy."""

    site: FaultSite
    outside: Namespace
    net: Net
    authority: Authority
    devices: Authority
    directory: Path

    def attach(self, device: Namespace, client_id: str, **settings: str) -> SiteProcess:
        """An agent in a device's namespace that is online."""
        given = {
            "MQTT_URL": f"wss://{BROKER}",
            "UPLOAD_HOSTS": f"https://{STORE}",
            "CA_FILE": str(self.authority.file),
            **settings,
        }
        agent = self.site.agent(client_id, **given)
        agent.start(*device.inside)
        self.site.until(lambda: self.site.connected(client_id), f"{client_id} to connect")
        return agent

    def uploaded(self, client_id: str) -> int:
        """Bytes of one upload of two parts, which must be proven."""
        path = self.site.file(client_id, "a.bin", SIZE)
        upload_id = self.site.trigger(client_id, path)
        upload = self.site.ended(upload_id)
        assert (upload["state"], upload["error"]) == ("completed", None), upload
        return self.site.bytes_received(upload_id)


def logged(agent: SiteProcess, reason: str) -> bool:
    """Whether the agent's log has a reason, soon."""
    return came_true(lambda: reason in agent.log, PATIENCE)


def program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="module", name="world")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The servers, and one namespace beside them: that of a device, and in other tests that of a proxy."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    nginx, directory = program("nginx"), tmp_path_factory.mktemp("world")
    with ExitStack() as stack:
        outside = stack.enter_context(namespace())
        net = stack.enter_context(link(outside))
        known(outside, net)
        authority, devices = (Authority.make(directory, name) for name in ("servers", "devices"))
        certificate, key = authority.issue("servers", BROKER, STORE, net.near, net.near6)
        websockets = free_port()
        plain = BrokerAddress("127.0.0.1", free_port())
        tls = f"certfile {certificate}\nkeyfile {key}\n"
        text = configuration.development_mosquitto(port=plain.port, directory=directory, persistence=False)
        text += (
            f"listener {websockets} 127.0.0.1\nprotocol websockets\nmax_qos 1\n"
            f"listener 8883 {net.near}\n{tls}max_qos 1\n"
            f"listener 8883 {net.near6}\n{tls}max_qos 1\n"
            f"listener 8884 {net.near}\n{tls}cafile {devices.file}\nrequire_certificate true\nmax_qos 1\n"
        )
        broker = stack.enter_context(start_configured(directory / "broker", text, [plain]))
        site = stack.enter_context(
            running_site(directory / "site", {"S3_PUBLIC_ENDPOINT": f"https://{STORE}"}, broker=broker)
        )
        home = directory / "nginx"
        home.mkdir()
        folders = "".join(
            f"{name}_temp_path {home}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (home / "nginx.conf").write_text(
            NGINX.format(
                home=home,
                folders=folders,
                certificate=certificate,
                key=key,
                listen=f"listen {net.near}:443 ssl; listen [{net.near6}]:443 ssl;",
                websockets=websockets,
                store=site.store.endpoint,
            )
        )
        command = [nginx, "-e", "stderr", "-p", str(home), "-c", str(home / "nginx.conf")]
        stack.enter_context(ChildProcess(command, home / "nginx.log"))
        yield World(site, outside, net, authority, devices, directory)


def known(device: Namespace, net: Net, addresses: str | None = None) -> None:
    """Make the names of the servers known in a namespace."""
    lines = [f"{one} {name}" for name in (BROKER, STORE) for one in (addresses or net.near).split()]
    device.know(*lines)


@pytest.fixture(name="behind")
def _behind(world: World) -> Iterator[Namespace]:
    """A device whose only neighbour is the namespace `outside`, and which knows no name of a server."""
    with namespace() as device, link(device, world.outside) as net:
        device.know(f"{net.near} office-proxy")
        yield device


@pytest.fixture(name="proxy")
def _proxy(world: World, tmp_path: Path) -> Iterator[str]:
    """Tinyproxy outside, which asks for credentials and opens connections to port 443 only; its URL."""
    yield from tinyproxy(world, tmp_path, "ConnectPort 443\n")


def tinyproxy(world: World, home: Path, more: str) -> Iterator[str]:
    config = home / "tinyproxy.conf"
    config.write_text(
        f"Port {PROXY_PORT}\nListen 0.0.0.0\nTimeout 600\nMaxClients 50\n"
        f"BasicAuth till-7 hunter2\nLogLevel Info\n{more}"
    )
    command = (*world.outside.inside, program("tinyproxy"), "-d", "-c", str(config))
    with ChildProcess(command, home / "tinyproxy.log") as running:
        assert came_true(lambda: "Accepting connections" in running.output(), 30), running.output()
        yield f"http://till-7:hunter2@office-proxy:{PROXY_PORT}"


def test_port_443_alone_carries_mqtt_over_websockets_and_uploads(world: World) -> None:
    agent = world.attach(world.outside, "wss")
    assert world.uploaded("wss") == SIZE
    assert "InsecureRequest" not in agent.log
    agent.terminate()
    world.site.until(lambda: not world.site.connected("wss"), "the farewell")


def test_a_proxy_with_a_password_carries_all_and_resolves_the_names(
    world: World, behind: Namespace, proxy: str
) -> None:
    agent = world.attach(behind, "proxied", MQTT_PROXY=proxy, UPLOAD_PROXY=proxy)
    assert world.uploaded("proxied") == SIZE
    assert "hunter2" not in agent.log
    assert "X-Amz-Signature" not in agent.log


def test_mqtt_with_tls_passes_a_proxy_that_opens_its_port(world: World, behind: Namespace, tmp_path: Path) -> None:
    for proxy in tinyproxy(world, tmp_path, "ConnectPort 443\nConnectPort 8883\n"):
        world.attach(behind, "mqtts", MQTT_URL=f"mqtts://{BROKER}", MQTT_PROXY=proxy, UPLOAD_PROXY=proxy)
        assert world.uploaded("mqtts") == SIZE


def test_what_the_proxy_does_not_allow_is_named_in_the_log(world: World, behind: Namespace, proxy: str) -> None:
    unknown = proxy.replace("hunter2", "wrong")
    reasons = {
        "forbidden": ({"MQTT_URL": f"mqtts://{BROKER}", "MQTT_PROXY": proxy}, f"forbids {BROKER}:8883 (403)"),
        "unknown": ({"MQTT_PROXY": unknown}, "does not accept its user and password (401)"),
        "nobody": ({"MQTT_PROXY": proxy, "MQTT_URL": "wss://nowhere.test"}, "cannot reach nowhere.test:443 (50"),
        "away": ({"MQTT_PROXY": proxy.replace("8888", "8889")}, "cannot be reached: Connection refused"),
    }
    agents = {}
    for name, (settings, _) in reasons.items():
        agents[name] = world.site.agent(name, CA_FILE=str(world.authority.file), **settings)
        agents[name].start(*behind.inside)
    for name, (_, reason) in reasons.items():
        assert logged(agents[name], reason), agents[name].log


def test_without_its_setting_no_upload_goes_through_the_proxy(world: World, behind: Namespace, proxy: str) -> None:
    world.attach(behind, "strict", MQTT_PROXY=proxy, http_proxy=proxy, HTTPS_PROXY=proxy, ALL_PROXY=proxy)
    upload_id = world.site.trigger("strict", world.site.file("strict", "a.bin", SIZE))
    world.site.until(lambda: "cannot connect to store.test:443" in str(world.site.upload(upload_id)), "the reason")
    assert not world.site.events(upload_id, Operation.UPLOAD_PART)


def test_a_client_certificate_opens_a_listener_that_requires_one(world: World) -> None:
    certificate, key = world.devices.issue("certified")
    url = f"mqtts://{BROKER}:8884"
    refused = world.site.agent("uncertified", MQTT_URL=url, CA_FILE=str(world.authority.file))
    refused.start(*world.outside.inside)
    assert came_true(lambda: "certificate required" in refused.log.lower().replace("_", " "), PATIENCE), refused.log
    world.attach(world.outside, "certified", MQTT_URL=url, MQTT_CERTIFICATE=str(certificate), MQTT_KEY=str(key))
    assert world.uploaded("certified") == SIZE


def test_ipv6_alone_carries_all(world: World) -> None:
    known(world.outside, world.net, world.net.near6)
    try:
        world.attach(world.outside, "six")
        assert world.uploaded("six") == SIZE
        world.attach(world.outside, "literal", MQTT_URL=f"mqtts://[{world.net.near6}]")
    finally:
        known(world.outside, world.net)


def test_a_family_that_leads_nowhere_costs_a_moment(world: World) -> None:
    nowhere = "fd00:dead::1"
    world.outside.run("-6", "route", "add", f"{nowhere}/128", "via", world.net.near6)
    known(world.outside, world.net, f"{nowhere} {world.net.near}")
    try:
        world.attach(world.outside, "both")
        assert world.uploaded("both") == SIZE
    finally:
        known(world.outside, world.net)


def test_without_the_authority_the_log_names_the_setting(world: World) -> None:
    agent = world.site.agent("untrusting", MQTT_URL=f"wss://{BROKER}")
    agent.start(*world.outside.inside)
    reason = "not accepted: unable to get local issuer certificate (its authority belongs into CA_FILE)"
    assert logged(agent, reason), agent.log
