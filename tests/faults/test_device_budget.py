"""A budget of the device with real processes: an upload of two days, kills, and a moved clock.

Rule: libfaketime moves the clock of the agent while it runs; the rest of the site lives today.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_sites import CHUNK, FaultSite, SiteProcess, clock_of
from tests.support.midday import zone_at_midday
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import connected

pytestmark = pytest.mark.slow


def reason_of(site: FaultSite, upload_id: str) -> str | None:
    reason = site.upload(upload_id)["reason"]
    return None if reason is None else reason["code"]


def presence_of(site: FaultSite, name: str) -> dict[str, Any]:
    with connected(site.broker.address.port, Connect(f"cli-{name[-40:]}")) as wire:
        wire.subscribe(f"fleet/v1/{name}/presence")
        return dict(json.loads(wire.receive().payload))


def start_again(site: FaultSite, agent: SiteProcess, name: str) -> dict[str, Any]:
    """Kill the agent and start it; the presence of this start. What REST shows may be of the start before."""
    before = presence_of(site, name)["epoch"]
    agent.kill()
    agent.start()
    seen: list[dict[str, Any]] = []

    def is_online() -> bool:
        seen.append(presence_of(site, name))
        return bool(seen[-1]["status"] == "online" and seen[-1]["epoch"] > before)

    site.until(is_online, "the agent to connect again")
    return seen[-1]


def test_an_upload_larger_than_a_days_budget_goes_on_the_next_day_over_kills_and_completes(
    site: FaultSite, name: str, faketime: str
) -> None:
    """Who holds the last part back, the device or its owner, depends on whose report came first."""
    clock: Path = site.directory / f"{name}.clock"
    clock.write_text("+0")
    limits = {"BYTES_PER_DAY": str(2 * CHUNK), "TIMEZONE": zone_at_midday(), "MAX_PARALLEL_PARTS": "1"}
    agent = site.attach(name, **limits, **clock_of(faketime, clock))
    path = site.file(name, "big.bin", 3 * CHUNK)
    upload_id = site.trigger(name, path)
    site.until(lambda: reason_of(site, upload_id) == "device_budget", "the upload to wait for the next day")
    site.until(lambda: site.bytes_received(upload_id) == 2 * CHUNK, "two parts")
    budget = start_again(site, agent, name)["budget"]
    assert (budget["day"]["used"], budget["holds"]) == (2 * CHUNK, ["device_budget"]), "a kill gives no new budget"
    assert datetime.fromisoformat(budget["day"]["resets_at"]).hour == 0
    clock.write_text("-20000d")
    budget = start_again(site, agent, name)["budget"]
    assert budget["day"]["used"] == 2 * CHUNK, "a clock that was never set gives no new budget"
    site.until(lambda: reason_of(site, upload_id) == "device_budget", "the upload to wait in 1970 too")
    assert site.bytes_received(upload_id) == 2 * CHUNK
    # A presence has a changed budget once a minute; that of a start has it at once.
    clock.write_text("+1d")
    assert start_again(site, agent, name)["budget"]["day"]["used"] == 0
    assert site.completed(upload_id, path)["attempt"] == 1
    # After a kill one part may be sent again, within the budget of the next day.
    assert site.bytes_received(upload_id) in {3 * CHUNK, 4 * CHUNK}


def test_a_condition_of_the_device_holds_an_upload_and_its_owner_does_not_give_it_up(
    site: FaultSite, name: str
) -> None:
    agent = site.attach(name, MIN_DISK_FREE=str(2**52))
    path = site.file(name, "small.bin", 1000)
    upload_id = site.trigger(name, path)
    site.until(lambda: reason_of(site, upload_id) == "device_disk", "the upload to wait for the disk")
    assert "(MIN_DISK_FREE)" in site.upload(upload_id)["reason"]["text"]
    start_again(site, agent, name)
    assert site.upload(upload_id)["state"] in {"dispatched", "queued"}
    agent.terminate()
    agent.start(MIN_DISK_FREE="1")
    site.completed(upload_id, path)
