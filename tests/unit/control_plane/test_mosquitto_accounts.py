"""The accounts of devices in the files of a Mosquitto.

Rule: the files are real; the process that is told is this one.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import access
from control_plane.adapters.mosquitto import MosquittoAccounts
from control_plane.services.errors import AccountsDown
from schemas.topics import Topics


@pytest.fixture
def told() -> Iterator[list[int]]:
    """Each SIGHUP that came."""
    signals: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _frame: signals.append(number))
    yield signals
    signal.signal(signal.SIGHUP, before)


def test_a_repeat_tells_the_broker_of_an_account_that_was_removed_before(tmp_path: Path, told: list[int]) -> None:
    access.prepare(tmp_path)
    pid_file = tmp_path / "mosquitto.pid"
    accounts = MosquittoAccounts(tmp_path, pid_file)
    with pytest.raises(AccountsDown):
        asyncio.run(accounts.give("restaurant-7"))
    with pytest.raises(AccountsDown):
        asyncio.run(accounts.remove("restaurant-7"))
    assert access.accounts(tmp_path) == ()
    pid_file.write_text(str(os.getpid()))
    asyncio.run(accounts.remove("restaurant-7"))
    assert told == [signal.SIGHUP]


@pytest.mark.parametrize("text", ["0", "-1", "", "mosquitto"])
def test_a_pid_file_without_a_process_tells_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """0 is every process of this group, -1 every one that this user may signal."""
    signalled: list[int] = []
    monkeypatch.setattr(os, "kill", lambda process, _signal: signalled.append(process))
    access.prepare(tmp_path)
    pid_file = tmp_path / "mosquitto.pid"
    pid_file.write_text(text)
    with pytest.raises(AccountsDown, match="BROKER_PID_FILE"):
        asyncio.run(MosquittoAccounts(tmp_path, pid_file).give("restaurant-7"))
    assert signalled == []


def test_an_access_list_of_an_earlier_version_gets_the_topic_of_the_keys_with_the_next_device(tmp_path: Path) -> None:
    """Without it the control plane cannot publish the list, and the device would be signed and obey nobody."""
    topics = Topics("other/v1")
    access.enroll_service(tmp_path, "control-plane", topics=topics)
    rules = tmp_path / access.ACCESS_LIST
    full = rules.read_text()
    assert full.count(topics.keys()) == 2
    rules.write_text("".join(line for line in full.splitlines(keepends=True) if topics.keys() not in line))
    asyncio.run(MosquittoAccounts(tmp_path, None, topics).give("restaurant-7"))
    assert rules.read_text() == full


def test_an_account_that_is_kept_has_its_password_and_its_rights(tmp_path: Path, told: list[int]) -> None:
    pid_file = tmp_path / "mosquitto.pid"
    pid_file.write_text(str(os.getpid()))
    access.enroll(tmp_path, "restaurant-7")
    access.enroll_service(tmp_path, "control-plane")
    passwords, rules = tmp_path / access.PASSWORDS, tmp_path / access.ACCESS_LIST
    before, full = passwords.read_text(), rules.read_text()
    rules.write_text("".join(line for line in full.splitlines(keepends=True) if Topics().keys() not in line))
    accounts = MosquittoAccounts(tmp_path, pid_file)
    assert asyncio.run(accounts.keep("restaurant-7"))
    assert not asyncio.run(accounts.keep("restaurant-8"))
    assert (passwords.read_text(), rules.read_text()) == (before, full)
    assert set(told) == {signal.SIGHUP}
