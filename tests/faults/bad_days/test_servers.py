"""Servers that are not what they should be: login pages, certificates that expired or are not valid yet, dead sockets.

Rule: every day ends with an upload that is completed by the same process.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.authorities import Authority
from tests.support.bad_days.fixtures import calm, impatient, logs, waits_for_broker
from tests.support.bad_days.front import Front
from tests.support.fault_sites import CHUNK, FaultSite, clock_of

pytestmark = pytest.mark.slow

Change = Callable[[Front, Authority, Path], None]


def foreign(front: Front, _: Authority, folder: Path) -> None:
    """A login page with a certificate that no authority of the device has signed."""
    front.tls = Authority.make(folder / "foreign", "portal").server()
    front.portal = True


def expired(front: Front, authority: Authority, _: Path) -> None:
    """The broker's certificate has expired."""
    front.tls = authority.server(expired=True)


def plain_page(front: Front, _: Authority, __: Path) -> None:
    """A login page without TLS answers at the port of TLS."""
    front.plain_portal = True


def page(front: Front, _: Authority, __: Path) -> None:
    """A proxy that ends TLS, with an accepted certificate, and shows its page."""
    front.portal = True


DAYS: Final[dict[str, tuple[Change, str]]] = {
    "foreign-certificate": (foreign, "the certificate of the server is not accepted: unable to get local issuer"),
    "expired-certificate": (expired, "not accepted: certificate has expired; the clock of this device is at "),
    "page-without-tls": (plain_page, "what answers does not speak TLS: is this another service, or the login page"),
    "page-behind-tls": (page, "no MQTT broker has answered: is this another service, or the login page"),
}


@pytest.mark.parametrize("day", DAYS)
def test_a_server_that_is_not_the_broker_is_named_and_waited_out(
    site: FaultSite, name: str, tmp_path: Path, day: str
) -> None:
    change, reason = DAYS[day]
    authority = Authority.make(tmp_path / "authority", "test")
    with Front(site.mqtt.port, tls=authority.server()) as front:
        change(front, authority, tmp_path)
        url = f"mqtts://127.0.0.1:{front.port}"
        agent = impatient(site, name, MQTT_URL=url, SSL_CERT_FILE=str(authority.file))
        agent.start()
        waits_for_broker(site, agent, reason)
        pid = agent.pid
        front.portal = front.plain_portal = False
        front.tls = authority.server()
        site.until(lambda: site.connected(name), "the agent to connect")
        path = site.file(name, "a.bin", 1000)
        site.completed(site.trigger(name, path), path)
        assert agent.pid == pid
        assert calm(agent)


def test_a_login_page_at_the_brokers_port_without_tls_is_named_and_waited_out(site: FaultSite, name: str) -> None:
    with Front(site.mqtt.port) as front:
        front.portal = True
        agent = impatient(site, name, MQTT_URL=f"mqtt://127.0.0.1:{front.port}")
        agent.start()
        waits_for_broker(site, agent, "no MQTT broker has answered: is this another service, or the login page")
        front.portal = False
        site.until(lambda: site.connected(name), "the agent to connect")
        assert calm(agent)


def test_a_clock_in_the_seventies_is_named_and_uploads_go_on_when_it_is_set(
    site: FaultSite, name: str, faketime: str, tmp_path: Path
) -> None:
    clock, authority = tmp_path / "clock", Authority.make(tmp_path / "authority", "test")
    clock.write_text("-20000d")
    with Front(site.mqtt.port, tls=authority.server()) as front:
        agent = impatient(
            site,
            name,
            MQTT_URL=f"mqtts://127.0.0.1:{front.port}",
            SSL_CERT_FILE=str(authority.file),
            MAX_PARALLEL_PARTS="1",
            **clock_of(faketime, clock),
        )
        agent.start()
        status = waits_for_broker(site, agent, "certificate is not yet valid; the clock of this device is at 197")
        assert status.clock.notes
        clock.write_text("+0")
        site.until(lambda: site.connected(name), "the agent to connect")
        path = site.file(name, "big.bin", 3 * CHUNK)
        site.s3.stall_after(CHUNK + CHUNK // 2)
        upload_id = site.trigger(name, path)
        site.until(lambda: site.s3.stalled, "the upload to stall in the middle of a part")
        # Back by years while it sends, a reconnect that must wait for the clock, and forward again.
        clock.write_text("-20000d")
        before = agent.log.count("is not yet valid")
        site.s3.flow()
        site.mqtt.cut()
        site.until(lambda: agent.log.count("is not yet valid") > before, "a connection with the wrong clock")
        clock.write_text("+0")
        assert site.completed(upload_id, path)["attempt"] == 1
        assert site.bytes_received(upload_id) == path.stat().st_size
        assert calm(agent)


def test_after_a_suspend_a_dead_connection_is_noticed_at_once(site: FaultSite, name: str, tmp_path: Path) -> None:
    slept = tmp_path / "slept"
    slept.write_text("0")
    with Front(site.mqtt.port) as front:
        agent = impatient(site, name, MQTT_URL=f"mqtt://127.0.0.1:{front.port}", BAD_DAY_SLEPT=str(slept))
        agent.start()
        site.until(lambda: site.connected(name), "the agent to connect")
        agent.freeze()
        front.die()
        moved = tmp_path / "moved"
        moved.write_text("28800")
        moved.replace(slept)
        agent.thaw()
        logs(site, agent, "this device was suspended, or stopped, for 2880")
        site.until(lambda: agent.log.count("connected: epoch=") == 2, "the next connection")
        path = site.file(name, "a.bin", 1000)
        site.completed(site.trigger(name, path), path)
        assert calm(agent)
