"""The folder store at an address of the network, for `backhaul up --listen`.

Rule: nothing but the address differs from `adapters.folder_store`.
"""

import socket
from contextlib import suppress
from pathlib import Path

from broker.leash import Child
from control_plane.adapters.folder_store import FolderCredentials, FolderStore, read_credentials


class NetworkStore(FolderStore):
    """One running store at `address`; every request needs a signature, as on loopback."""

    def __init__(self, directory: Path, address: str, port: int, credentials: FolderCredentials) -> None:
        super().__init__(directory, port, credentials)
        self._address = address

    @property
    def endpoint(self) -> str:
        """The value for the setting `AWS_ENDPOINT`."""
        return f"http://{self.upload_host}"

    @property
    def upload_host(self) -> str:
        """The value for the agents' setting `UPLOAD_HOSTS`."""
        return f"{self._address}:{self.port}"

    def _command(self) -> tuple[str, ...]:
        words = list(super()._command())
        words[words.index("--host") + 1] = self._address
        return tuple(words)

    def _listens(self, child: Child) -> bool:
        with suppress(OSError):
            socket.create_connection((self._address, self.port), timeout=1.0).close()
            return child.alive
        return False


def start_network_store(directory: Path, address: str, port: int) -> NetworkStore:
    """A running store over `directory`, with the credentials of the last start if there was one."""
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    credentials = read_credentials(directory / "nanio.toml") or FolderCredentials.random()
    store = NetworkStore(directory, address, port, credentials)
    store.start()
    return store
