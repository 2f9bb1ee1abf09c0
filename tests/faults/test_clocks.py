"""Wrong clocks: the agent's may be years off, the control plane's ten minutes, and either may jump during an upload.

Rule: the object store's clock is always right; libfaketime shifts the clock of one process while it runs.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.fault_sites import CHUNK, FaultSite, clock_of, running_site
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import connected
from tests.support.strict_s3 import Operation

pytestmark = pytest.mark.slow

YEARS: Final = {"ten-years-ahead": "+3650d", "in-1970": "-20000d"}
MINUTES: Final = {"ahead": "+10m", "behind": "-10m"}


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory, faketime: str) -> Iterator[tuple[FaultSite, Path]]:
    """A site, and the file that holds the clock offset of its control plane."""
    directory = tmp_path_factory.mktemp("clocks")
    clock = directory / "clock"
    clock.write_text("+0")
    with running_site(directory, clock_of(faketime, clock)) as site:
        yield site, clock


def clock_reported_by(site: FaultSite, name: str) -> datetime:
    """The time by the agent's clock, from its retained presence."""
    with connected(site.broker.address.port, Connect(f"cli-{name[-40:]}")) as wire:
        wire.subscribe(f"fleet/v1/{name}/presence")
        return datetime.fromisoformat(json.loads(wire.receive().payload)["since"])


@pytest.mark.parametrize("years", YEARS)
def test_an_agent_whose_clock_is_years_off_uploads_and_resumes(
    site: FaultSite, name: str, faketime: str, years: str
) -> None:
    clock = site.directory / f"{name}.clock"
    clock.write_text(YEARS[years])
    agent = site.attach(name, MAX_PARALLEL_PARTS="1", **clock_of(faketime, clock))
    assert abs(clock_reported_by(site, name) - datetime.now(UTC)) > timedelta(days=3_000)
    path = site.file(name, "big.bin", 3 * CHUNK)
    site.s3.stall_after(CHUNK + CHUNK // 2)
    upload_id = site.trigger(name, path)
    site.until(lambda: site.s3.stalled, "the upload to stall in the middle of a part")
    agent.kill()
    site.s3.flow()
    agent.start()
    assert site.completed(upload_id, path)["attempt"] == 1
    assert len(site.s3_uploads(upload_id)) == 1


def test_an_agent_whose_clock_jumps_sends_no_byte_twice(site: FaultSite, name: str, faketime: str) -> None:
    clock = site.directory / f"{name}.clock"
    clock.write_text("+0")
    site.attach(name, MAX_PARALLEL_PARTS="1", **clock_of(faketime, clock))
    path = site.file(name, "big.bin", 3 * CHUNK)
    site.s3.stall_after(CHUNK + CHUNK // 2)
    upload_id = site.trigger(name, path)
    site.until(lambda: site.s3.stalled, "the upload to stall in the middle of a part")
    clock.write_text("-20000d")
    site.s3.flow()
    assert site.completed(upload_id, path)["attempt"] == 1
    assert site.bytes_received(upload_id) == path.stat().st_size


def clock_check(site: FaultSite) -> str:
    """What readiness reports of the clock."""
    text: str = httpx.get(f"{site.server}/health/ready", timeout=60).json()["checks"]["clock"]
    return text


@pytest.mark.parametrize("minutes", MINUTES)
def test_a_control_plane_whose_clock_was_set_wrong_signs_nothing_until_it_is_right(
    moved: tuple[FaultSite, Path], name: str, minutes: str
) -> None:
    """The kind: a span that is measured on a wall clock. A URL with a wrong date lives too long or too short."""
    site, clock = moved
    site.reset()
    clock.write_text(MINUTES[minutes])
    site.until(lambda: "clock was set" in clock_check(site), "the step to be seen")
    site.attach(name)
    path = site.file(name, "big.bin", 2 * CHUNK)
    upload_id = site.trigger(name, path)
    site.until(lambda: "clock" in str(site.upload(upload_id)["reason"]), "the reason")
    assert site.events(upload_id, Operation.UPLOAD_PART) == []
    clock.write_text("+0")
    assert site.completed(upload_id, path)["attempt"] == 1


def test_a_control_plane_started_with_a_wrong_clock_signs_no_url(moved: tuple[FaultSite, Path], name: str) -> None:
    """The object store refuses a URL that is signed in the future; one signed in the past expires too early."""
    site, clock = moved
    site.reset()
    site.plane.kill()
    clock.write_text(MINUTES["ahead"])
    site.plane.start()
    site.until(lambda: is_up(site), "the control plane to answer")
    site.attach(name)
    path = site.file(name, "waiting.bin", 2 * CHUNK)
    upload_id = site.trigger(name, path)
    site.until(lambda: "set this machine's clock" in str(site.upload(upload_id)["reason"]), "the reason")
    assert not site.ready()
    assert site.events(upload_id, Operation.UPLOAD_PART) == []
    clock.write_text("+0")
    assert site.completed(upload_id, path)["attempt"] == 1


def is_up(site: FaultSite) -> bool:
    """Whether it answers requests; with a wrong clock it never becomes ready."""
    try:
        return bool(site.get("/health")["status"] == "ok")
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("minutes", MINUTES)
def test_a_clock_jump_of_the_control_plane_stops_no_upload(
    moved: tuple[FaultSite, Path], name: str, minutes: str
) -> None:
    site, clock = moved
    site.reset()
    clock.write_text("+0")
    upload_id, path = site.begun(name, parts=3)
    clock.write_text(MINUTES[minutes])
    site.s3.flow()
    assert site.completed(upload_id, path)["attempt"] == 1
    clock.write_text("+0")


def test_a_clock_that_is_set_takes_no_client_offline(moved: tuple[FaultSite, Path], name: str) -> None:
    site, clock = moved
    site.reset()
    clock.write_text("+0")
    site.attach(name)
    clock.write_text("+95")
    site.until(lambda: "clock was set" in clock_check(site), "the step to be seen")
    assert site.connected(name)
    clock.write_text("+0")


@pytest.mark.timeout(300)
def test_a_client_is_offline_ninety_seconds_after_its_last_message(site: FaultSite, name: str) -> None:
    """A retained `online` has no effect on that: a dead broker leaves no client online for ever."""
    site.attach(name)
    site.broker.kill()
    site.until(lambda: not site.connected(name), "the client to count as offline", patience=120)
    upload_id = site.trigger(name, site.file(name, "later.bin", 1000))
    assert site.upload(upload_id)["reason"]["text"] == "the client is offline"
    # The next presence message brings it back.
    site.broker.start()
    site.until(lambda: site.connected(name), "the client to be back", patience=150)
    assert site.ended(upload_id)["state"] == "completed"
