"""A control plane that is killed at any commit, in virtual time: what it was doing goes on, nothing is lost or doubled.

Rule: the sweep goes over every commit of the work, right before it and right after it, and ends when none is left.
"""

import asyncio

import pytest

from control_plane.domain.access import Principal
from control_plane.services.uploads.service import TriggerRequest
from tests.simulation.jobs.database import Fate
from tests.simulation.jobs.devices import ModelDevice, model_files
from tests.simulation.jobs.plane import KillAt, Lost
from tests.simulation.jobs.site import Site

OPERATOR = Principal("operator")
CONNECTED = 20.0
"""Seconds after which every device has connected and every presence is stored."""


def a_site(number: int, fate: Fate, *, devices: int) -> Site:
    site = Site(1, fates=KillAt(number, fate))
    site.add(
        [
            ModelDevice(site.world, site.broker, site.bucket, f"till-{one}", model_files(one, 2, 5000))
            for one in range(1, devices + 1)
        ]
    )
    return site


async def started(site: Site) -> None:
    for plane in site.planes:
        plane.start()
    for device in site.devices.values():
        device.switch_on()
    await asyncio.sleep(CONNECTED)


def uploads_after_a_kill(number: int, fate: Fate) -> tuple[Site, list[tuple[str, int]]]:
    """Two uploads whose trigger is repeated until it is answered."""
    site = a_site(number, fate, devices=2)

    async def triggered(client_id: str) -> None:
        request = TriggerRequest(client_id, "/data/1.bin", idempotency_key=client_id)
        while True:
            try:
                await site.planes[0].call(lambda engine: engine.upload_service.trigger(OPERATOR, request))
            except Lost:
                await asyncio.sleep(5.0)
            else:
                return

    async def work() -> list[tuple[str, int]]:
        await started(site)
        for client_id in site.devices:
            await triggered(client_id)
        await asyncio.sleep(600.0)
        site.watch()
        return [(state, attempt) for state, attempt in site.database.rows("SELECT state, attempt FROM uploads")]

    return site, site.play(work())


@pytest.mark.parametrize("fate", Fate)
def test_uploads_complete_once_whichever_commit_kills_the_control_plane(fate: Fate) -> None:
    for number in range(1, 100):
        site, uploads = uploads_after_a_kill(number, fate)
        assert uploads == [("completed", 1)] * 2, number
        assert len(site.bucket.born) == 2, number
        if not site.planes[0].deaths:
            break
    assert number > 8
