"""A fleet of 1,000 simulated devices is moved from unsigned to signed while uploads run, and nothing is lost.

Rule: the order of the steps is that of docs/how-to/sign-the-fleet.md. Broker, store and control plane are processes;
the devices are simulated, with real keys, claims and signatures.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest

from control_plane.cli.simulate.bundles import Bundles
from control_plane.cli.simulate.fleet import Fleet as Simulated
from control_plane.cli.simulate.fleet import FleetSettings
from schemas.topics import Topics
from tests.support.signed_fleet import SignedFleet
from tests.support.sites import TERMINAL, Fleet, running_fleet, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEVICES: Final = 1_000
WAVE: Final = 100
PATIENCE: Final = 240.0
RATE: Final = 15
"""Uploads a second that are begun while the fleet is moved."""

_PAGE: Final = 500


class Site:
    """A running site, and calls of its REST that do not block the devices."""

    def __init__(self, fleet: Fleet, calls: httpx.AsyncClient) -> None:
        self.fleet = fleet
        self.calls = calls
        self.uploads: list[str] = []

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.calls.get(path)
        assert answer.status_code == httpx.codes.OK, answer.text
        return dict(answer.json())

    async def all_of(self, path: str, name: str) -> list[dict[str, Any]]:
        """Every page of a list."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = await self.get(f"{path}limit={_PAGE}{cursor}")
            found += page[name]
            if page["cursor"] is None:
                return found
            cursor = f"&cursor={page['cursor']}"

    async def trigger(self, client_id: str) -> None:
        answer = await self.calls.post(f"/trigger-download/{client_id}")
        assert answer.status_code == httpx.codes.OK, answer.text
        self.uploads.append(answer.json()["upload_id"])

    async def until(self, met: Any, what: str) -> None:  # noqa: ANN401 - a coroutine function
        ends = asyncio.get_running_loop().time() + PATIENCE
        while not await met():
            self.fleet.site.check()
            assert asyncio.get_running_loop().time() < ends, f"waited {PATIENCE:.0f} s for {what}"
            await asyncio.sleep(0.5)

    async def all_ended(self) -> bool:
        return len(await self.states()) == len(self.uploads)

    async def states(self) -> dict[str, str]:
        """The state of each upload that has ended."""
        rows = await self.all_of("/uploads?", "uploads")
        return {one["upload_id"]: one["state"] for one in rows if one["state"] in TERMINAL}


@asynccontextmanager
async def load(site: Site, names: list[str]) -> AsyncIterator[None]:
    """Uploads of devices chosen at random, begun at a steady rate until the block ends."""
    over = asyncio.Event()

    async def begin() -> None:
        while not over.is_set():
            await asyncio.gather(site.trigger(random.choice(names)), asyncio.sleep(1 / RATE))

    running = asyncio.create_task(begin())
    try:
        yield
    finally:
        # Not cancelled: an upload whose answer nobody read would be in the history, and not in the list of the test.
        over.set()
        await running


def unverified(devices: Simulated) -> int:
    """What the devices did not obey so far, counted where it is: their presences say it up to half a minute later."""
    identities = [one.device._identity for one in devices.members]
    return sum(one.unverified for one in identities if one is not None)


async def enroll(site: Site, name: str, folder: Path) -> None:
    answer = await site.calls.post("/devices", json={"client_id": name})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    (folder / f"{name}.json").write_bytes(msgspec.json.encode(answer.json()))


@pytest.fixture
def fleet(tmp_path: Path) -> Any:  # noqa: ANN401 - a generator of pytest
    # What a device drops at the moment at which it begins to verify is sent again after this time.
    with running_fleet(tmp_path, {"CLIENT_TIMEOUT": "20"}) as running:
        yield running


async def test_a_thousand_devices_are_moved_while_uploads_run(fleet: Fleet, tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    settings = FleetSettings(devices=DEVICES, mqtt_url=fleet.site.broker.address.url, name="till-{}", file_size=4096)
    devices = Simulated(settings)
    names = settings.client_ids()
    bundles = Bundles(folder, Topics())
    running = asyncio.create_task(devices.run())
    try:
        assert await devices.counters.until(lambda: devices.counters.connected == DEVICES, PATIENCE)
        async with httpx.AsyncClient(base_url=fleet.site.server, timeout=60) as calls:
            site = Site(fleet, calls)

            async def known() -> bool:
                clients = await site.all_of("/clients?", "clients")
                return len([one for one in clients if one["connected"]]) == DEVICES

            await site.until(known, "every device to be known")
            async with load(site, names):
                # 1. A root and a list of keys with that of the control plane.
                await asyncio.to_thread(SignedFleet, fleet)
                # 2. Each device is enrolled, and goes on as it is.
                waves = [range(at, min(at + WAVE, DEVICES)) for at in range(0, DEVICES, WAVE)]
                for wave in waves:
                    await asyncio.gather(*(enroll(site, names[index], folder) for index in wave))
                # 3. Each device starts again with its bundle: some at a time.
                for wave in waves:
                    for index in wave:
                        devices.members[index].device.enroll(bundles.account(names[index]))
                    await asyncio.sleep(1.0)

                async def moved() -> bool:
                    rows = await site.all_of("/devices?", "devices")
                    active = sum(one["state"] == "active" for one in rows)
                    return active == DEVICES and devices.counters.connected == DEVICES

                await site.until(moved, "every key to be pinned")

                async def enough() -> bool:
                    return len(site.uploads) > DEVICES / 10

                # How many began meanwhile depends on the machine.
                await site.until(enough, "uploads of a tenth of the fleet")
            await site.until(site.all_ended, "the end of every upload")
            # 4. Unsigned messages are refused from now on.
            await asyncio.to_thread(fleet.site.plane.stop)
            plane = serve(fleet.site.directory, {**fleet.plane_settings, "REQUIRE_SIGNED": "true"})
            fleet.site = replace(fleet.site, plane=await asyncio.to_thread(fleet.stack.enter_context, plane))
            await asyncio.to_thread(fleet.until, fleet.ready, "the control plane again")
            before = unverified(devices)
            for name in names[:: DEVICES // 50]:
                await site.trigger(name)
            await site.until(site.all_ended, "the end of every upload")

            states = await site.states()

            async def on_the_list() -> bool:
                # A device says with its next beat that it has the list.
                return {one["keys_version"] for one in await site.all_of("/devices?", "devices")} == {1}

            await site.until(on_the_list, "every device to have the list of keys")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await devices.leave()
        await asyncio.sleep(1.0)
    assert set(states) == set(site.uploads)
    assert set(states.values()) == {"completed"}
    assert unverified(devices) == before
