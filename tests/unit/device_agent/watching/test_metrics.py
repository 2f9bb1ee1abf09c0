"""The agent's metrics: their text, the file and the port."""

import socket
import stat
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace as changed
from prometheus_client.parser import text_string_to_metric_families as parsed

from device_agent.inbox import Connected, Disconnected
from device_agent.watching.exporter import FILE_EVERY, PORT_EVERY, Exporter
from device_agent.watching.figures import METRICS, PREFIX, Figures, text_of
from schemas.values import BudgetUse, DeviceBudget
from tests.support.patience import came_true
from tests.unit.device_agent.agent_loop import AgentLoop

FIGURES = Figures(
    version="1.2.3",
    at=1_000.5,
    connected=True,
    contact_at=1_000.5,
    uploads={"sending": 2, "waiting": 0},
    unresponsive=1,
    journal_failing=False,
    disk_free=2**33,
    disk_total=2**35,
    journal_size=4_096,
    bytes_sent=5,
    parts_sent=1,
    ended={"completed": 3},
    events={"faults": 1},
    budget=DeviceBudget(day=BudgetUse(10, 5), metered_month=BudgetUse(7, 1), metered=True, holds=("device_load",)),
)


def samples(text: str) -> dict[str, float]:
    """Every sample by its name and labels."""
    return {
        one.name + "".join(f"{{{key}={value}}}" for key, value in one.labels.items()): one.value
        for family in parsed(text)
        for one in family.samples
    }


class Shown(Exporter):
    """Keeps the figures."""

    enabled = True

    def __init__(self) -> None:
        super().__init__()
        self.figures: list[Figures] = []

    def show(self, figures: Figures) -> None:
        self.figures.append(figures)


def holds(path: Path, line: str) -> bool:
    """Whether the file has this line."""
    return path.exists() and line in path.read_text()


def test_the_text_is_prometheus_and_has_every_metric() -> None:
    found = samples(text_of(FIGURES))
    assert found["backhaul_agent_uploads_open{state=sending}"] == 2
    assert found["backhaul_agent_disk_free_bytes"] == 2**33
    assert found["backhaul_agent_uploads_ended_total{outcome=completed}"] == 3
    assert {name.partition("{")[0] for name in found} == {f"{PREFIX}{metric.name}" for metric in METRICS}


def test_what_is_not_known_is_left_out() -> None:
    text = text_of(changed(FIGURES, contact_at=None, disk_free=None))
    assert "last_contact" not in text
    assert "disk_free" not in text


def test_the_file_is_replaced_whole_and_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "backhaul.prom"
    exporter = Exporter(path)
    exporter.start()
    for count in (1, 2):
        exporter.show(changed(FIGURES, parts_sent=count))
        line = f"parts_total {count}\n"
        assert came_true(partial(holds, path, line), 30)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]
    assert exporter.every == FILE_EVERY


def test_a_file_that_cannot_be_written_is_logged_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "missing"
    exporter = Exporter(folder / "backhaul.prom")
    exporter.start()
    exporter.show(FIGURES)
    assert came_true(lambda: "cannot be written" in caplog.text, 30)
    exporter.show(changed(FIGURES, parts_sent=7))
    folder.mkdir()
    exporter.show(changed(FIGURES, parts_sent=8))
    assert came_true((folder / "backhaul.prom").exists, 30)
    assert caplog.text.count("cannot be written") == 1


def test_the_port_is_of_this_machine_and_answers_with_the_text() -> None:
    exporter = Exporter(port=0)
    exporter.start()
    exporter.show(FIGURES)
    assert exporter.port is not None
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", exporter.port), timeout=60) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200")
        assert f"Content-Length: {len(body)}" in head
        assert samples(body)["backhaul_agent_connected"] == 1
    assert exporter.every == PORT_EVERY


def test_a_port_that_is_taken_leaves_the_agent_working(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        exporter = Exporter(port=taken.getsockname()[1])
        exporter.start()
        exporter.show(FIGURES)
    assert exporter.port is None
    assert "works without it" in caplog.text


def test_the_loop_shows_its_figures_and_wakes_for_them(tmp_path: Path) -> None:
    """Nothing else is due in between."""
    shown = Shown()
    loop = with_metrics(tmp_path, shown)
    loop.agent.turn([Connected()])
    timeout = loop.agent.turn([])
    assert timeout <= shown.every
    assert shown.figures[-1].connected
    loop.now += shown.every
    loop.agent.turn([Disconnected("gone")])
    assert not shown.figures[-1].connected
    assert shown.figures[-1].contact_at is not None
    assert len(shown.figures) == 2


def test_the_figures_of_an_agent_are_those_of_its_uploads(tmp_path: Path) -> None:
    shown = Shown()
    loop = with_metrics(tmp_path, shown)
    loop.sending()
    loop.now += shown.every
    loop.agent.turn([])
    assert shown.figures[-1].uploads["sending"] == 1
    assert shown.figures[-1].journal_size > 0


def with_metrics(folder: Path, exporter: Exporter) -> AgentLoop:
    """An agent that shows its figures there."""
    return AgentLoop(folder, metrics=exporter)
