"""A file system that does not answer takes the thread that waits for it and no other; its upload names the wait.

Rule: the kind is a call that cannot be interrupted, at the head of a queue that others share. A hung mount is an
`Event` that the test sets.
"""

import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from device_agent.agent import Agent, Environment
from device_agent.effects import EffectRunner
from device_agent.files.file_call import FILE_CALL
from device_agent.files.mounts import mount_of
from device_agent.files.roots import Roots
from device_agent.files.safe_open import open_folder
from device_agent.files.source import Source, open_source
from device_agent.inbox import CommandArrived, Connected, EventQueue
from device_agent.mqtt.connection import AckToken
from device_agent.settings import Settings
from device_agent.state.installation import Installation
from device_agent.state.journal import Journal
from device_agent.state.selections import KeptSelections
from device_agent.uploads import MAX_UNANSWERED
from device_agent.workers import pool as pool_module
from device_agent.workers.part_io import PartIO
from device_agent.workers.pool import MAX_LOST, PATIENCE, ThreadPool
from schemas.parts import Part
from schemas.values import SystemInfo
from tests.unit.device_agent.agent_loop import FakeNetwork

SOON = 60.0
"""Seconds after which a test gives up; nothing takes that long."""


@pytest.fixture
def mount() -> Iterator[threading.Event]:
    """A mount that answers once it is set."""
    answers = threading.Event()
    yield answers
    answers.set()


def check_until(fact: Callable[[], object], turn: Callable[[], object] = lambda: time.sleep(0.001)) -> None:
    give_up = time.monotonic() + SOON
    while not fact():
        assert time.monotonic() < give_up
        turn()


def hangs(mount: threading.Event, entered: threading.Semaphore | None = None) -> Callable[[], None]:
    def call() -> None:
        with FILE_CALL:
            if entered:
                entered.release()
            mount.wait()

    return call


def later() -> float:
    return time.monotonic() + PATIENCE


# The pool.


def test_a_thread_that_gets_no_answer_is_replaced_and_named(mount: threading.Event) -> None:
    pool, entered, done = ThreadPool("read", 1), threading.Semaphore(0), threading.Event()
    pool.start()
    pool.submit(hangs(mount, entered), "hung")
    assert entered.acquire(timeout=SOON)
    pool.submit(done.set, "good")
    assert pool.replace_stuck(time.monotonic()) == {}
    assert list(pool.replace_stuck(later())) == ["hung"]
    assert done.wait(SOON)
    assert pool.lost == 1
    mount.set()
    check_until(lambda: pool.lost == 0 and not pool.busy)
    assert pool.replace_stuck(later()) == {}


def test_a_long_call_that_is_answered_keeps_its_thread(mount: threading.Event) -> None:
    """Reading a large file takes long, but each read of it is answered."""
    pool, entered = ThreadPool("read", 1), threading.Semaphore(0)

    def reads() -> None:
        with FILE_CALL:
            pass
        entered.release()
        mount.wait()

    pool.start()
    pool.submit(reads, "long")
    assert entered.acquire(timeout=SOON)
    assert pool.replace_stuck(later()) == {}
    assert pool.lost == 0


def test_replaced_threads_are_bounded(mount: threading.Event) -> None:
    pool, entered = ThreadPool("read", 2), threading.Semaphore(0)
    pool.start()
    for number in range(MAX_LOST + 5):
        pool.submit(hangs(mount, entered), number)
    for _ in range(MAX_LOST):
        pool.replace_stuck(later())
        assert entered.acquire(timeout=SOON)
    check_until(lambda: len(pool.replace_stuck(later())) == MAX_LOST + 2)
    assert pool.lost == MAX_LOST


def test_the_end_of_the_process_waits_for_no_lost_thread() -> None:
    script = """
import threading, time
from device_agent.files.file_call import FILE_CALL
from device_agent.workers.pool import PATIENCE, ThreadPool
pool, entered = ThreadPool("read", 1), threading.Event()
def call():
    with FILE_CALL:
        entered.set()
        threading.Event().wait()
pool.start()
pool.submit(call)
entered.wait()
pool.replace_stuck(time.monotonic() + PATIENCE)
pool.stop()
pool.join(time.monotonic() + 60)
print("ended")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True)
    assert ended.stdout == "ended\n"


# The start.


def test_a_root_that_does_not_answer_delays_the_start_by_a_bounded_time(
    tmp_path: Path, mount: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("hung", "good"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()

    def opened(path: str) -> tuple[int, bool]:
        if path.endswith("hung"):
            mount.wait()
        return open_folder(path)

    monkeypatch.setattr("device_agent.files.roots.open_folder", opened)
    monkeypatch.setattr("device_agent.files.roots.START_PATIENCE", 0.01)
    roots = Roots((f"{tmp_path}/hung", f"{tmp_path}/good"), f"{tmp_path}/hung/file")
    open_source(f"{tmp_path}/good/file", roots).close()
    assert roots.mount_of(f"{tmp_path}/hung/file") == mount_of(str(tmp_path))
    mount.set()
    open_source(f"{tmp_path}/hung/file", roots).close()


def test_the_mount_of_a_path_is_the_deepest_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("".join(f"1 0 0:1 / {at} rw - ext4 d rw\n" for at in ("/", "/mnt", r"/mnt/a\040b", "/proc")))
    monkeypatch.setattr("device_agent.files.mounts._TABLE", str(table))
    paths = ("/mnt/a b/c", "/mnt/a b", "/mnt/ax", "/mntx", "/")
    assert [mount_of(path) for path in paths] == ["/mnt/a b", "/mnt/a b", "/mnt", "/", "/"]


# The agent.


class Store:
    """An object store that takes everything; it reads the part, as the real uploader does."""

    def put(self, _url: object, source: Source, piece: Part, **_: object) -> str:
        source.read_into(memoryview(bytearray(piece.size)), piece.offset)
        return '"e"'

    def close(self) -> None:
        """Nothing to cut."""


class Device:
    """An agent with its threads over real files; calls on a file whose name begins with `hung` wait for the mount."""

    def __init__(self, folder: Path, mount: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool_module, "PATIENCE", 0.05)
        self.folder = folder
        self.mount = mount
        self.hung_calls = {"openat", "preadv", "stat"}
        for name in ("preadv", "stat"):
            monkeypatch.setattr(os, name, self._hanging(name, getattr(os, name)))
        monkeypatch.setattr("device_agent.files.source.open_beneath", self._opening)
        (folder / "state").mkdir()
        roots = Roots((str(folder),))
        monkeypatch.setattr(roots, "mount_of", lambda path: "/mnt/hung" if "/hung" in path else "/")
        copies = SimpleNamespace(
            sweep=lambda _orders: None, open=lambda order, _stopped: open_source(order.file_path, roots)
        )
        self.inbox, self.network = EventQueue(), FakeNetwork([])
        part_io = PartIO(cast("Any", Store()), cast("Any", copies))
        self.runner = EffectRunner(part_io, self.inbox, senders=2)
        journal, transfers = Journal.open(folder / "state")
        environment = Environment(
            selections=KeptSelections(folder / "state" / "selections"),
            inbox=self.inbox,
            runner=self.runner,
            connect=lambda _will: self.network,
            check_url=lambda _part: None,
            system_info=SystemInfo,
            roots=roots,
        )
        settings = Settings(client_id="d1", state_dir=folder / "state")
        self.agent = Agent(settings, journal, transfers, Installation.open(folder / "state"), environment)
        self.agent.start()
        self.inbox.put(Connected())

    def _hanging(self, name: str, call: Any) -> Any:  # noqa: ANN401 (any function of `os`)
        def wrapped(what: Any, *more: Any, **named: Any) -> Any:  # noqa: ANN401
            path = Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else Path(what)
            if name in self.hung_calls and path.name.startswith("hung"):
                self.mount.wait()
            return call(what, *more, **named)

        return wrapped

    def _opening(self, folder: int, relative: str, flags: int) -> int:
        from device_agent.files.safe_open import open_beneath  # noqa: PLC0415 (the original)

        if "openat" in self.hung_calls and relative.startswith("hung"):
            self.mount.wait()
        return open_beneath(folder, relative, flags)

    def command(self, action: str, message_id: str, **payload: Any) -> None:  # noqa: ANN401
        message = {"message_id": message_id, "action": action, "payload": payload}
        self.inbox.put(CommandArrived(msgspec.json.encode(message), AckToken(1, 1)))

    def download(self, name: str) -> None:
        (self.folder / name).write_bytes(b"content")
        urls = [{"part_number": 1, "url": f"https://s/{name}"}]
        config = {"upload_id": name, "attempt": 1, "owner": "cli-x", "presigned_urls": urls}
        self.command("download_file", name, file_path=str(self.folder / name), upload_config=config)

    def turn(self) -> None:
        self.agent.turn(self.inbox.take(0.02))

    def messages(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(data) for data in self.network.published]

    def ended(self) -> set[str]:
        return {m["message_id"] for m in self.messages() if m.get("status") == "success" and "action" in m}

    def reasons(self) -> dict[str, str]:
        """The latest reason of each upload that a Status named."""
        found = {}
        for message in self.messages():
            for entry in message.get("uploads", ()):
                found[entry["upload_id"]] = entry.get("reason") or ""
        return found


@pytest.fixture
def device(tmp_path: Path, mount: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    device = Device(tmp_path, mount, monkeypatch)
    yield device
    mount.set()
    device.runner.stop()


@pytest.mark.parametrize("calls", [{"openat"}, {"preadv"}], ids=["open", "read"])
def test_files_that_do_not_answer_delay_no_other_file(device: Device, calls: set[str]) -> None:
    """More hung files than slots, readers and senders: the good ones end, the others name their wait, and end later."""
    device.hung_calls = calls
    hung = {f"hung-{number}" for number in range(7)}
    for name in sorted(hung):
        device.download(name)
    for name in ("good-1", "good-2"):
        device.download(name)
    check_until(lambda: {"good-1", "good-2"} <= device.ended() - {"h"}, device.turn)

    def all_named() -> bool:
        return all(device.reasons().get(name, "").startswith("source_unresponsive") for name in hung)

    check_until(all_named, device.turn)
    assert not hung & device.ended()
    device.mount.set()
    check_until(lambda: hung <= device.ended(), device.turn)


def test_a_cancelled_upload_whose_file_does_not_answer_ends(device: Device) -> None:
    device.download("hung-1")
    check_until(lambda: device.reasons().get("hung-1", "").startswith("source_unresponsive"), device.turn)
    device.command("cancel_upload", "c", upload_id="hung-1")
    check_until(lambda: any(m.get("status") == "cancelled" for m in device.messages()), device.turn)


def test_uploads_that_are_cancelled_and_begun_again_take_no_more_threads(device: Device) -> None:
    def waits(name: str) -> bool:
        run = device.agent.uploads.get(name)
        return run is not None and run.unresponsive(0.0) is not None

    for number in range(2 * MAX_UNANSWERED):
        name = f"hung-{number}"
        device.download(name)
        check_until(functools.partial(waits, name), device.turn)
        device.command("cancel_upload", f"c{number}", upload_id=name)
        device.command("close_upload", f"e{number}", upload_id=name)
    device.download("good-1")
    check_until(lambda: "good-1" in device.ended(), device.turn)
    # A busy machine may let another thread wait for longer than this test's patience, for a moment.
    check_until(lambda: device.runner._reader.lost == MAX_UNANSWERED, device.turn)


def test_a_listing_that_gets_no_answer_fails_once_and_delays_no_other_query(device: Device) -> None:
    (device.folder / "hung-1").touch()
    for number in range(12):
        device.command("list_files", f"l{number}", pattern=f"{device.folder}/*")
    device.command("health_check", "h1")

    def failed() -> set[str]:
        return {m["message_id"] for m in device.messages() if "source_unresponsive" in (m.get("message") or "")}

    check_until(lambda: "h1" in device.ended(), device.turn)
    check_until(lambda: len(failed()) == 12, device.turn)
    device.mount.set()
    check_until(lambda: not device.runner.busy, device.turn)
    device.turn()
    answered = [message["message_id"] for message in device.messages() if message.get("action") == "list_files"]
    assert sorted(answered) == sorted(f"l{number}" for number in range(12))
