"""`docker-compose.prod.yml` with PostgreSQL, running: what it lets in, and what it does not.

Rule: the file is run unchanged (tests/support/engine_site.py describes the containers beside it).
"""

import json
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.support.engine_fixtures import bases, built, caddy_image, images, production_images
from tests.support.engine_site import DEVICE, HOST, SIZE, Site, running
from tests.support.engine_stack import PATIENCE, Operator, digest, eventually, process, published
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import Closed, Wire

__all__ = ["bases", "built", "caddy_image", "images", "production_images"]
pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

POSTGRES: Final = "deploy/production/postgres.yml"
SERVICES: Final = ("address", "mosquitto", "server", "caddy", "postgres")
NOT_AUTHORIZED: Final = 0x87
NET_BIND_SERVICE: Final = 1 << 10
MOUNTED: Final = "/run/secrets/backhaul/database_url"


@pytest.fixture(scope="module")
def site(production_images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("production"), POSTGRES, secrets=("--postgres",)) as site:
        yield site


@pytest.fixture(scope="module")
def token(site: Site) -> str:
    return site.token()


@pytest.fixture(scope="module")
def uploaded(site: Site, token: str) -> dict[str, Any]:
    """The one upload of the device, when it has ended."""
    operator = site.operator("--header", f"Authorization: Bearer {token}")
    return operator.wait(operator.trigger(DEVICE))


def test_https_answers_and_requires_a_token(site: Site, token: str) -> None:
    assert site.answer("/health") == "200"
    assert site.answer("/clients") == "401"
    assert site.answer("/clients", "--header", "Authorization: Bearer e30.e30.e30") == "401"
    assert site.answer("/trigger-download/restaurant-1", "--request", "POST") == "401"
    assert site.answer("/clients", "--header", f"Authorization: Bearer {token}") == "200"


def test_only_three_ports_are_published_and_each_speaks_tls_alone(site: Site) -> None:
    ports = {site.https, site.devices, site.services}
    assert {port for one in SERVICES for _, port in published(site.stack.inspect(one))} == ports
    plain = Operator(site.stack, f"http://{HOST}:{site.https}")
    assert plain.curl("--output", "/dev/null", "--write-out", "%{http_code}", f"{plain.url}/health") == "400"
    for port in (site.devices, site.services):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(Connect("anyone").encode())
            assert b"\x20" not in connection.recv(64)[:1]


def test_a_device_uploads_over_tls(site: Site, uploaded: dict[str, Any]) -> None:
    assert (uploaded["status"], uploaded["bytes_uploaded"]) == ("completed", SIZE), uploaded
    objects = site.stack.compose("exec", "-T", "s3", "sh", "-c", "cat /var/lib/store/*/uploads/*/*.bin | sha256sum")
    assert objects.split()[0] == digest(site.stack.directory / "test-data/test-file.bin")


def test_the_device_is_signed_and_obeys_the_published_list(site: Site, token: str) -> None:
    """The control plane drops what is unsigned (`REQUIRE_SIGNED`), so a device that is connected has signed that."""
    operator = site.operator("--header", f"Authorization: Bearer {token}")
    published = operator.get("/keys")
    assert [one["principal"] for one in published["keys"]] == ["control-plane"]
    client = eventually(
        lambda: operator.get(f"/clients/{DEVICE}"), lambda found: found.get("connected") is True, PATIENCE
    )
    assert (client["keys_version"], client["unverified"]) == (published["version"], 0)
    device = operator.get(f"/devices/{DEVICE}")
    assert (device["state"], device["awaits_claim"], device["keys_version"]) == ("active", False, published["version"])
    assert device["kid"].startswith("ed25519:")
    assert site.bundle["root"] is not None


def test_a_receipt_is_signed_by_the_device_and_by_the_control_plane(
    site: Site, token: str, uploaded: dict[str, Any]
) -> None:
    operator = site.operator("--header", f"Authorization: Bearer {token}")
    path = f"/uploads/{uploaded['upload_id']}"
    eventually(lambda: operator.get(path), lambda found: found["receipt"] == "device", PATIENCE)
    receipt = operator.get(f"{path}/receipt")
    holders = {one["of"]: one["keyid"] for one in receipt["keys"]}
    assert (receipt["signed_by_device"], receipt["refused"]) == (True, None)
    assert holders.keys() == {"device", "control-plane"}
    assert holders["device"] == operator.get(f"/devices/{DEVICE}")["kid"]
    assert {one["keyid"] for one in receipt["envelope"]["signatures"]} == {*holders.values()}
    verified = json.loads(operator.curl("--request", "POST", f"{operator.url}{path}/verify"))
    assert (verified["verdict"], verified["signed_by_device"], verified["differs"]) == ("verified", True, [])


def test_a_bundle_has_what_a_device_needs_to_reach_this_broker(site: Site) -> None:
    bundle = site.bundle
    assert (bundle["client_id"], bundle["mqtt_url"]) == (DEVICE, f"mqtts://{HOST}:{site.devices}")
    assert bundle["ca"] == (site.secrets / "broker-ca.crt").read_text()
    assert "devices" not in site.stack.running()


def test_the_rows_are_in_postgresql(site: Site, token: str) -> None:
    operator = site.operator("--header", f"Authorization: Bearer {token}")
    counted = site.stack.compose(
        *("exec", "-T", "-e", f"PGPASSWORD={(site.secrets / 'postgres_password').read_text().strip()}", "postgres"),
        *("psql", "-h", "127.0.0.1", "-U", "backhaul", "-At", "-c", "SELECT count(*) FROM uploads", "backhaul"),
    )
    assert int(counted) == len(operator.get("/uploads")["uploads"])


def test_the_migrations_job_finds_nothing_to_do(site: Site) -> None:
    """With what Kubernetes gives it, and nothing else."""
    given = ("--env", f"DATABASE_URL_FILE={MOUNTED}", "--volume", f"{site.secrets}/database_url:{MOUNTED}:ro")
    limits = ("--rm", "--read-only", "--cap-drop", "ALL", "--network", f"{site.stack.project}_back")
    assert "newest schema" in site.stack.run(["docker", "run", *limits, *given, "backhaul-server", "migrate"])


def test_the_certificate_of_a_public_name_is_obtained_through_the_published_port_alone(site: Site) -> None:
    """As Caddy reads the file for such a name; getting one was not seen."""
    name = ("-e", "PUBLIC_HOST=backhaul.example.com", "-e", "CERTIFICATE=public")
    adapt = ("caddy", "adapt", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile")
    printed = site.stack.compose("exec", "-T", *name, "caddy", *adapt)
    (policy,) = json.loads(printed[printed.index("{") :])["apps"]["tls"]["automation"]["policies"]
    (issuer,) = policy["issuers"]
    assert (policy["subjects"], issuer["module"]) == (["backhaul.example.com"], "acme")
    assert issuer["challenges"] == {"http": {"disabled": True}}


def test_caddy_starts_although_its_program_wants_a_capability(site: Site) -> None:
    """As the official image's does; where it cannot be had the kernel does not run such a program."""
    assert "cap_net_bind_service" in site.stack.compose("exec", "-T", "caddy", "getcap", "/usr/bin/caddy")
    assert site.stack.inspect("caddy")["RestartCount"] == 0


def test_anonymous_and_unknown_devices_are_refused(site: Site) -> None:
    assert refused(site.devices, site.tls(), Connect("anyone")) == NOT_AUTHORIZED
    assert refused(site.devices, site.tls(), Connect("anyone", username="anyone", password="guess")) == NOT_AUTHORIZED


def test_the_services_port_requires_a_certificate_and_a_password(site: Site) -> None:
    device = Connect(DEVICE, username=DEVICE, password=site.bundle["mqtt_password"])
    assert refused(site.services, site.tls(), device) == "closed"
    certified = site.tls("operator.crt", "operator.key")
    assert refused(site.services, certified, Connect("cli-1")) == NOT_AUTHORIZED


def test_old_tls_is_refused(site: Site) -> None:
    old = site.tls()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert refused(site.devices, old, Connect("anyone")) == "closed"


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_limits_and_few_rights(site: Site, service: str) -> None:
    found = site.stack.inspect(service)
    assert found["State"]["Running"] is True
    limits = found["HostConfig"]
    assert limits["ReadonlyRootfs"] is True
    assert limits["Memory"] > 0
    assert limits["PidsLimit"] > 0
    assert limits["CapDrop"] == ["ALL"]
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", found["Config"]["User"])
    facts = process(found)
    assert not {"0"} & {*facts["Uid"].split(), *facts["Gid"].split()}
    may_have = NET_BIND_SERVICE if service == "caddy" else 0
    assert (int(facts["CapEff"], 16), int(facts["CapBnd"], 16), facts["NoNewPrivs"]) == (0, may_have, "1")


def test_no_secret_stands_in_an_environment_or_a_log(site: Site, token: str) -> None:
    names = ("jwt_secret", "database_url", "postgres_password")
    hidden = {name: (site.secrets / name).read_text().strip() for name in names}
    hidden |= {"token": token, "device": site.bundle["mqtt_password"]}
    shown = site.stack.compose("logs", "--no-color")
    shown += "".join(str(site.stack.inspect(service)["Config"]) for service in (*SERVICES, "device"))
    assert [name for name, secret in hidden.items() if secret in shown] == []


def refused(port: int, tls: ssl.SSLContext, connect: Connect) -> int | str:
    """The reason of the broker's answer; `closed` when there is none."""
    try:
        with Wire(port, tls) as wire:
            return wire.connect(connect).reason
    except (ssl.SSLError, OSError, Closed):
        return "closed"
