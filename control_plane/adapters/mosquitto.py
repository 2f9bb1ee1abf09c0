"""The accounts of devices in the two files of a Mosquitto, which this machine can write.

Rule: the broker reads its files again at SIGHUP. It gets one from here when its process id is known; else whoever runs
the broker sends it (a path unit, `backhaul up`).
"""

import asyncio
import os
import signal
from pathlib import Path

from broker import access
from broker.errors import BrokerError, NoAccount
from control_plane.services.errors import AccountsDown
from schemas.topics import Topics


class MosquittoAccounts:
    """The port `DeviceAccounts`. `pid_file` is the broker's own (`pid_file` in mosquitto.conf), if it writes one."""

    def __init__(self, directory: Path, pid_file: Path | None, topics: Topics | None = None) -> None:
        self._directory = directory
        self._pid_file = pid_file
        self._topics = topics or Topics()

    async def give(self, client_id: str) -> str:
        """A new password of the account, which is made where there is none."""
        return await asyncio.to_thread(self._give, client_id)

    async def keep(self, client_id: str) -> bool:
        """The password goes on: a device that is connected, or connects before it has its bundle, is let in."""
        return await asyncio.to_thread(self._keep, client_id)

    async def remove(self, client_id: str) -> None:
        """The broker ends the connection when it reads its files again."""
        await asyncio.to_thread(self._remove, client_id)

    def _give(self, client_id: str) -> str:
        try:
            # One of an earlier version lacks the topic of the keys, without which a signed device obeys no command.
            access.prepare(self._directory, topics=self._topics)
            given = access.enroll(self._directory, client_id, replace=True)
        except (BrokerError, OSError) as error:
            raise self._unusable(error) from error
        self._reload()
        return given.password

    def _keep(self, client_id: str) -> bool:
        try:
            access.prepare(self._directory, topics=self._topics)
            there = client_id in access.accounts(self._directory)
        except (BrokerError, OSError) as error:
            raise self._unusable(error) from error
        self._reload()
        return there

    def _remove(self, client_id: str) -> None:
        try:
            access.revoke(self._directory, client_id)
        except NoAccount:
            # It was removed before, and the broker may not have read that.
            pass
        except (BrokerError, OSError) as error:
            raise self._unusable(error) from error
        self._reload()

    def _reload(self) -> None:
        if self._pid_file is None:
            return
        try:
            os.kill(_process_in(self._pid_file), signal.SIGHUP)
        except (OSError, ValueError) as error:
            text = f"the account is changed, and the broker was not told (BROKER_PID_FILE={self._pid_file}): {error}"
            raise AccountsDown(text) from error

    def _unusable(self, error: Exception) -> AccountsDown:
        return AccountsDown(f"the accounts of the broker in {self._directory} (BROKER_ACCESS): {error}")


def _process_in(pid_file: Path) -> int:
    """The process id in a file; `ValueError` for what is none: 0 and below are groups of processes, this one's too."""
    found = int(pid_file.read_text())
    if found < 1:
        text = f"{found} is no process of a broker"
        raise ValueError(text)
    return found
