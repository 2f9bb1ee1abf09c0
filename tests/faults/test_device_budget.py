"""A budget of the device with real processes: an upload of three days, a kill at each of them, and a moved clock.

Rule: libfaketime moves the clock of the agent while it runs; the rest of the site lives today.
"""

import json
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.fault_sites import CHUNK, FaultSite, clock_of
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import connected

pytestmark = pytest.mark.slow


def reason_of(site: FaultSite, upload_id: str) -> str | None:
    reason = site.upload(upload_id)["reason"]
    return None if reason is None else reason["code"]


def presence_of(site: FaultSite, name: str) -> dict[str, object]:
    with connected(site.broker.address.port, Connect(f"cli-{name[-40:]}")) as wire:
        wire.subscribe(f"fleet/v1/{name}/presence")
        return dict(json.loads(wire.receive().payload))


def test_an_upload_larger_than_a_days_budget_goes_on_each_day_over_kills_and_completes(
    site: FaultSite, name: str, faketime: str
) -> None:
    clock: Path = site.directory / f"{name}.clock"
    clock.write_text("+0")
    limits = {"BYTES_PER_DAY": str(2 * CHUNK), "TIMEZONE": "Europe/Berlin", "MAX_PARALLEL_PARTS": "1"}
    agent = site.attach(name, **limits, **clock_of(faketime, clock))
    path = site.file(name, "big.bin", 3 * CHUNK)
    upload_id = site.trigger(name, path)
    site.until(lambda: reason_of(site, upload_id) == "device_budget", "the upload to wait for the next day")
    text = site.upload(upload_id)["reason"]["text"]
    assert "10,485,760 of 10,485,760 bytes of this day are used (BYTES_PER_DAY)" in text
    assert site.bytes_received(upload_id) == 2 * CHUNK
    agent.kill()
    agent.start()
    site.until(lambda: site.connected(name), "the agent to connect again")

    def counted() -> bool:
        budget = presence_of(site, name).get("budget")
        return isinstance(budget, dict) and budget["day"]["used"] == 2 * CHUNK and budget["holds"] == ["device_budget"]

    site.until(counted, "the presence to have the bytes of before the kill")
    day = presence_of(site, name)["budget"]["day"]  # type: ignore[index]
    assert datetime.fromisoformat(day["resets_at"]).hour == 0
    assert site.bytes_received(upload_id) == 2 * CHUNK, "a kill gives no new budget"
    clock.write_text("-20000d")
    agent.kill()
    agent.start()
    site.until(lambda: site.connected(name), "the agent to connect from 1970")
    site.until(lambda: reason_of(site, upload_id) == "device_budget", "the upload to wait in 1970 too")
    assert site.bytes_received(upload_id) == 2 * CHUNK, "a clock that was never set gives no new budget"
    clock.write_text("+1d")
    assert site.completed(upload_id, path)["attempt"] == 1
    assert site.bytes_received(upload_id) == 3 * CHUNK


def test_a_condition_of_the_device_holds_an_upload_and_its_owner_does_not_give_it_up(
    site: FaultSite, name: str
) -> None:
    agent = site.attach(name, MIN_DISK_FREE=str(2**52))
    path = site.file(name, "small.bin", 1000)
    upload_id = site.trigger(name, path)
    site.until(lambda: reason_of(site, upload_id) == "device_disk", "the upload to wait for the disk")
    assert "(MIN_DISK_FREE)" in site.upload(upload_id)["reason"]["text"]
    agent.kill()
    agent.start()
    site.until(lambda: site.connected(name), "the agent to connect again")
    assert site.upload(upload_id)["state"] in {"dispatched", "queued"}
    agent.terminate()
    agent.start(MIN_DISK_FREE="1")
    site.completed(upload_id, path)
