"""`backhaul top` against a real site: what an agent does is on the screen without a key."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.top.model import Following, Tab
from control_plane.cli.top.screens import Top
from tests.support.sites import PATIENCE, running_fleet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def test_an_upload_and_a_client_appear_as_they_happen(tmp_path: Path) -> None:
    file = tmp_path / "daily.csv"
    file.write_bytes(b"sales\n" * 1000)
    with running_fleet(tmp_path) as fleet:
        app = Top(lambda: ControlPlane(fleet.site.server), fleet.site.server)
        async with app.run_test(size=(80, 24)) as pilot:

            async def until(condition: Callable[[], bool]) -> None:
                async with asyncio.timeout(PATIENCE):
                    while not condition():
                        await pilot.pause(0.1)

            await until(lambda: app.feed.stream is Following.LIVE and app.feed.pages[Tab.UPLOADS].read)
            await asyncio.to_thread(fleet.attach, "restaurant-1", file)
            upload_id = await asyncio.to_thread(fleet.trigger, "restaurant-1")
            await until(lambda: [row["state"] for row in app.feed.pages[Tab.UPLOADS].rows] == ["completed"])
            assert app.feed.pages[Tab.UPLOADS].rows[0]["upload_id"] == upload_id
            await pilot.press("3")
            await until(lambda: [row["connected"] for row in app.feed.pages[Tab.CLIENTS].rows] == [True])
            assert app.feed.pages[Tab.CLIENTS].rows[0]["client_id"] == "restaurant-1"
