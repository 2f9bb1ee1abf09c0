"""A broker that is killed, frozen, full or without its database delays uploads and loses none.

Rule: every test checks that the upload is completed once and that no part is sent twice.
"""

import os
import signal
from pathlib import Path

import pytest

from broker.configuration import LOOPBACK, development_mosquitto
from broker.process import BrokerAddress
from broker.server import free_port, start_configured
from tests.support.fault_sites import CHUNK, FaultSite, fill, running_site
from tests.support.strict_s3 import Operation

pytestmark = pytest.mark.slow


def check_ended_once(site: FaultSite, upload_id: str, path: Path) -> None:
    site.s3.flow()
    upload = site.completed(upload_id, path)
    assert upload["attempt"] == 1
    assert len(site.s3_uploads(upload_id)) == 1
    assert site.bytes_received(upload_id) == path.stat().st_size, "a part was sent twice"
    assert sum(one.done for one in site.events(upload_id, Operation.COMPLETE_MULTIPART_UPLOAD)) == 1


def test_a_broker_that_lost_its_database_costs_no_part(site: FaultSite, name: str) -> None:
    upload_id, path = site.begun(name, parts=4)
    site.broker.kill()
    (site.directory / "broker" / "mosquitto.db").unlink(missing_ok=True)
    site.broker.start()
    check_ended_once(site, upload_id, path)
    site.until(lambda: site.connected(name), "the agent's presence")


def test_a_broker_restart_sends_no_part_twice(site: FaultSite, name: str) -> None:
    upload_id, path = site.begun(name, parts=4)
    site.broker.restart()
    check_ended_once(site, upload_id, path)


def test_parts_are_sent_while_the_broker_is_frozen(site: FaultSite, name: str) -> None:
    upload_id, path = site.begun(name, parts=4)
    site.broker.send(signal.SIGSTOP)
    key = site.upload(upload_id)["s3_key"]
    site.s3.flow()
    parts = Operation.UPLOAD_PART
    site.until(
        lambda: sum(one.done for one in site.strict.events() if one.key == key and one.operation == parts) == 4,
        "every part, while the broker is frozen",
    )
    assert site.upload(upload_id)["state"] == "in_progress"
    site.broker.send(signal.SIGCONT)
    check_ended_once(site, upload_id, path)


def test_a_publish_that_times_out_is_sent_again(site: FaultSite, name: str) -> None:
    """The first publish is in doubt and may still arrive; the second copy of a command changes nothing."""
    site.attach(name)
    site.broker.send(signal.SIGSTOP)
    before = len(site.plane.log)
    path = site.file(name, "in-doubt.bin", CHUNK + 1)
    upload_id = site.trigger(name, path)
    site.until(lambda: "did not take a message" in site.plane.log[before:], "a publish to be given up", 30)
    assert site.upload(upload_id)["state"] == "queued"
    site.broker.send(signal.SIGCONT)
    check_ended_once(site, upload_id, path)


def test_a_trigger_without_a_broker_is_answered_and_done_later(site: FaultSite, name: str) -> None:
    site.attach(name)
    path = site.file(name, "small.bin", 1000)
    site.broker.kill()
    upload_id = site.trigger(name, path)
    assert site.upload(upload_id)["reason"]
    site.broker.start()
    site.completed(upload_id, path)


def test_repeated_cuts_of_a_connection_send_no_part_twice(site: FaultSite, name: str) -> None:
    upload_id, path = site.begun(name, parts=4)
    for _ in range(3):
        site.until(site.mqtt.cut, "a connection to cut")
    check_ended_once(site, upload_id, path)


def test_a_full_broker_disk_stops_no_upload_and_no_restart(tmp_path: Path, small_disk: Path, name: str) -> None:
    port = free_port()
    text = development_mosquitto(port=port, directory=small_disk, persistence=True)
    broker = start_configured(tmp_path / "broker", text, [BrokerAddress(LOOPBACK, port)])
    with running_site(tmp_path, broker=broker) as site:
        site.attach(name)
        first = site.file(name, "first.bin", CHUNK + 1)
        site.completed(site.trigger(name, first), first)
        fill(small_disk / "ballast")
        # SIGUSR1 makes mosquitto write its database, as its timer does.
        broker.send(signal.SIGUSR1)
        second = site.file(name, "second.bin", CHUNK + 1)
        site.completed(site.trigger(name, second), second)
        site.until(lambda: "Saving in-memory database" in broker.log_path.read_text(), "the broker to write")
        assert os.statvfs(small_disk).f_bfree == 0
        broker.restart()
        (small_disk / "ballast").unlink()
        broker.restart()
        third = site.file(name, "third.bin", CHUNK + 1)
        assert site.completed(site.trigger(name, third), third)["attempt"] == 1
