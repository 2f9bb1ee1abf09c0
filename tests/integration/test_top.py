"""`backhaul top` driven by keys, against a server of a few rows."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.top import feed as feed_module
from control_plane.cli.top.model import Following, Tab
from control_plane.cli.top.screens import Ask, Details, Rows, Top
from tests.support.scripted_rest import UPLOAD_ID, scripted_rest, upload
from tests.support.scripted_rest import Rows as Served

PATIENCE = 60.0


@pytest.fixture
def site() -> Iterator[tuple[str, Served]]:
    """A control plane of a few rows."""
    with scripted_rest() as served:
        yield served


def top(url: str, *, agreed: bool = False, acts: bool = True) -> Top:
    """The program."""
    return Top(lambda: ControlPlane(url), url, agreed=agreed, acts=acts)


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> bool:
    """Wait for a fact; True when it came."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await pilot.pause(0.05)
    return True


def clients_of(app: Top) -> list[str]:
    """The first column."""
    table = app.screen_stack[0].query_one(Rows)
    return [str(table.get_row_at(at)[0]) for at in range(table.row_count)]


def text_of(app: Top, name: str) -> str:
    """What a line shows."""
    return str(app.screen.query_one(f"#{name}", Static).content)


def acts(rows: Served) -> list[str]:
    """What was asked to be done."""
    return [path for method, path in rows.requests if method == "POST"]


def reads(rows: Served, path: str) -> int:
    """How often a list was read."""
    return sum(asked.startswith(f"{path}?") for _, asked in rows.requests)


async def test_a_change_is_read_once_and_shown_and_nothing_is_read_without_one(site: tuple[str, Served]) -> None:
    url, rows = site
    app = top(url)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.feed.stream is Following.LIVE and clients_of(app) == ["restaurant-7"])
        # The stream that has just begun causes one more read, maybe a moment later; without a change it is the last. A
        # view that polls never comes to rest.
        counts: list[int] = []
        while len(counts) < 2 or counts[-1] != counts[-2]:
            assert len(counts) < 20, counts
            counts.append(len(rows.requests))
            await pilot.pause(1.5)
        before = counts[-1]
        rows.uploads = [upload("restaurant-1"), *rows.uploads]
        for _ in range(50):
            rows.tell("upload.created", client_id="restaurant-1")
        await until(pilot, lambda: clients_of(app) == ["restaurant-1", "restaurant-7"])
        await until(pilot, lambda: not app.feed.waits)
        assert len(rows.requests) - before <= 4


async def test_an_act_is_done_after_y_and_not_after_enter(site: tuple[str, Served]) -> None:
    url, rows = site
    app = top(url)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: clients_of(app) == ["restaurant-7"])
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        assert "Cancel upload" in text_of(app, "question")
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, Ask))
        assert acts(rows) == []
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        await pilot.press("y")
        await until(pilot, lambda: bool(acts(rows)))
        assert acts(rows) == [f"/uploads/{UPLOAD_ID}/cancel?client_id=restaurant-7"]
        await until(pilot, lambda: app.feed.pages[Tab.UPLOADS].rows[0]["state"] == "cancelled")


@pytest.mark.parametrize("agreed", [True, False])
async def test_without_input_only_yes_acts(site: tuple[str, Served], *, agreed: bool) -> None:
    url, rows = site
    app = top(url, agreed=agreed, acts=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: clients_of(app) == ["restaurant-7"])
        await pilot.press("c")
        await until(pilot, lambda: bool(acts(rows)) or len(app._notifications) > 0)
        assert bool(acts(rows)) is agreed


async def test_a_filter_narrows_the_list_and_escape_removes_it(site: tuple[str, Served]) -> None:
    url, rows = site
    rows.uploads = [upload("restaurant-1"), upload("restaurant-7")]
    app = top(url)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(clients_of(app)) == 2)
        await pilot.press("slash", *"client=q -7", "enter")
        await until(pilot, lambda: clients_of(app) == ["restaurant-7"])
        await until(pilot, lambda: any("client_id=q" in path for _, path in rows.requests))
        await pilot.press("escape")
        assert await until(pilot, lambda: len(clients_of(app)) == 2)


async def test_details_open_and_close_and_each_list_has_its_tab(site: tuple[str, Served]) -> None:
    url, rows = site
    rows.uploads = [upload("restaurant-7", file_path="/data/\x1b[31mred")]
    app = top(url)
    async with app.run_test(size=(200, 50)) as pilot:
        await until(pilot, lambda: clients_of(app) == ["restaurant-7"])
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Details))
        await until(pilot, lambda: reads(rows, f"/uploads/{UPLOAD_ID}") > 0)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Details))
        await pilot.press("tab")
        await until(pilot, lambda: clients_of(app) == ["nightly-1"])
        await pilot.press("3")
        assert await until(pilot, lambda: clients_of(app) == ["restaurant-1", "restaurant-2", "restaurant-7"])


async def test_a_lost_stream_is_shown_and_opened_again(
    site: tuple[str, Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "PAUSE", 0.5)
    url, rows = site
    app = top(url)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.feed.stream is Following.LIVE)
        rows.problem = 503
        rows.streams.pop().put(None)
        await until(pilot, lambda: "lost" in text_of(app, "stream"))
        rows.problem = 0
        assert await until(pilot, lambda: "live" in text_of(app, "stream"))


async def test_a_list_that_cannot_be_read_shows_why_and_keeps_its_rows(site: tuple[str, Served]) -> None:
    url, rows = site
    app = top(url)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.feed.stream is Following.LIVE and clients_of(app) == ["restaurant-7"])
        rows.problem = 403
        rows.tell("upload.created")
        await until(pilot, lambda: "Not here" in text_of(app, "summary"))
        assert clients_of(app) == ["restaurant-7"]


@pytest.mark.parametrize(("key", "interrupted"), [("q", False), ("ctrl+c", True)])
async def test_q_and_ctrl_c_end_it(site: tuple[str, Served], key: str, *, interrupted: bool) -> None:
    app = top(site[0])
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: clients_of(app) == ["restaurant-7"])
        await pilot.press(key)
        await until(pilot, lambda: not app.is_running)
    assert app.interrupted is interrupted


async def test_a_job_is_paused_as_of_the_version_that_was_shown(
    site: tuple[str, Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str, object]] = []

    def call(_: ControlPlane, method: str, path: str, **request: object) -> dict[str, object]:
        if method == "POST":
            sent.append((method, path, request["headers"]))
            return {}
        row = {"job_id": "nightly-1", "state": "running", "version": 7}
        return {"jobs": [row], "uploads": [], "clients": [], "cursor": None}

    monkeypatch.setattr(ControlPlane, "call", call)
    app = top(site[0])
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: clients_of(app) == ["nightly-1"])
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        await pilot.press("y")
        await until(pilot, lambda: bool(sent))
    assert sent == [("POST", "/jobs/nightly-1/pause", {"If-Match": '"7"'})]
