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
