"""The bundles of simulated devices: `CLIENT_ID.json` for each of them, as `backhaul device enroll --out` wrote it.

Rule: beside a bundle lies the key of its device, `CLIENT_ID.key.json`, made when it is first needed: another run is the
same device.
"""

from pathlib import Path

import msgspec

from control_plane.cli.simulate.identity import NO_ACCOUNT, Account, FleetTrust, SimulatedIdentity
from schemas.errors import SchemaError
from schemas.signing.canonical import from_text
from schemas.signing.claims import CLAIM_SECRET_SIZE
from schemas.signing.ed25519 import Signer
from schemas.signing.enrolment import MAX_BUNDLE, Bundle
from schemas.signing.key_files import create_key, read_key
from schemas.topics import Topics


class Bundles:
    """The accounts of the devices whose bundles lie in `folder`; None: no device has one."""

    def __init__(self, folder: Path | None, topics: Topics) -> None:
        self._folder = folder
        self._topics = topics
        self._trust: FleetTrust | None = None

    def account(self, client_id: str) -> Account:
        """What the bundle of this device gives it, which is nothing without one; `SchemaError` for a bad bundle."""
        if self._folder is None:
            return NO_ACCOUNT
        path = self._folder / f"{client_id}.json"
        try:
            with path.open("rb") as file:
                bundle = msgspec.json.decode(file.read(MAX_BUNDLE + 1), type=Bundle)
        except FileNotFoundError:
            return NO_ACCOUNT
        except ValueError as error:
            text = f"{path} is no bundle: {error}"
            raise SchemaError(text) from error
        if bundle.client_id != client_id:
            text = f"{path} is the bundle of {bundle.client_id}"
            raise SchemaError(text)
        return Account(bundle.mqtt_password, self._identity(bundle, path.with_suffix(".key.json")))

    def _identity(self, bundle: Bundle, key: Path) -> SimulatedIdentity | None:
        """The identity of a device in a fleet that signs; all of them share one copy of what they trust."""
        if bundle.root is None or bundle.claim_secret is None:
            return None
        if self._trust is None:
            self._trust = FleetTrust(bundle.root, self._topics.keys())
        secret = from_text(bundle.claim_secret, CLAIM_SECRET_SIZE)
        return SimulatedIdentity(bundle.client_id, _signer(key), secret, self._trust)


def _signer(path: Path) -> Signer:
    try:
        return read_key(path)
    except FileNotFoundError:
        return create_key(path)
