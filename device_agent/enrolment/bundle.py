"""The bundle: a file that holds everything with which this device joins its fleet.

Rule: it is the weakest source of settings, and it is read at each start; the root of trust and the claim in it are
stored once. Nothing of it is logged.
"""

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from device_agent.enrolment.claim import store_claim_secret
from device_agent.errors import SettingsError, TrustError

if TYPE_CHECKING:
    from schemas.signing.enrolment import Bundle

BUNDLE_FILE: Final = Path("/etc/backhaul/bundle.json")
"""Where one is looked for, if no setting names a file and the service manager hands over none."""

MAX_BUNDLE: Final = 256 * 1024
_OTHERS: Final = stat.S_IROTH | stat.S_IWOTH
_EMPTY: Final = frozenset({b"", b"{}"})
"""What the unit of systemd hands over where no bundle lies."""


def bundle_place(given: str | None, environ: Mapping[str, str]) -> Path | None:
    """The bundle of this device; None without one. One that a setting names must be there.

    One that is there and cannot be looked at is the answer too: reading it then gives the error.
    """
    if given:
        return Path(given)
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    places = ([Path(credentials) / "bundle"] if credentials else []) + [BUNDLE_FILE]
    for place in places:
        try:
            with place.open("rb") as file:
                if file.read(16).strip() not in _EMPTY:
                    return place
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            # It counts, as a folder of settings does: to leave it out would start an unsigned agent.
            return place
    return None


def read_bundle(path: Path) -> "Bundle":
    """The bundle in this file; `SettingsError` when it cannot be read, or is none. The text repeats nothing of it."""
    # A device without a bundle has none of these in its memory.
    import msgspec  # noqa: PLC0415

    from schemas.signing.enrolment import Bundle  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            content = file.read(MAX_BUNDLE + 1)
        return msgspec.json.decode(content, type=Bundle)
    except OSError as error:
        text = f"{path} cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        text = f"{path} is no bundle of a device: make it again with `backhaul device rotate`"
    raise SettingsError(text)


def settings_in(bundle: "Bundle", path: Path) -> dict[str, Any]:
    """The settings that a bundle has, by their names, as TOML would have them."""
    found = {
        "CLIENT_ID": bundle.client_id,
        "MQTT_URL": bundle.mqtt_url,
        "MQTT_PASSWORD": bundle.mqtt_password,
        "TOPIC_ROOT": bundle.topic_root,
        "CA_FILE": str(path.absolute()) if bundle.ca else None,
        "FILE_PATH": bundle.file_path,
        "ALLOWED_ROOTS": list(bundle.allowed_roots),
        "UPLOAD_HOSTS": list(bundle.upload_hosts),
        "LABELS": dict(bundle.labels),
    }
    return {name: value for name, value in found.items() if value}


def readable_by_others(path: Path) -> str | None:
    """The warning for a bundle that every user of the device can read."""
    try:
        open_to_all = bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return None
    return f"{path}: every user of this device can read the secrets in it: chmod 600 {path}" if open_to_all else None


def store_trust(bundle: "Bundle", state_dir: Path, keys_topic: str) -> None:
    """Store the root of trust, the claim, and the key if it was made with a request; a repeat changes nothing.

    The claim first, for the root makes the device a signed one. `TrustError` for another root than the stored one, and
    where PyNaCl is missing.
    """
    if bundle.root is None:
        return
    try:
        import nacl  # noqa: F401, PLC0415 (whether it is there)
    except ImportError as error:
        text = "the bundle has a root of trust, and PyNaCl is not installed: pip install 'backhaul[signing]'"
        raise TrustError(text) from error
    from device_agent.trust.trust_file import TrustFile  # noqa: PLC0415
    from schemas.signing.canonical import PUBLIC_KEY_SIZE, from_text  # noqa: PLC0415

    try:
        if bundle.claim_secret is not None:
            store_claim_secret(state_dir, from_text(bundle.claim_secret, PUBLIC_KEY_SIZE))
        if bundle.device_seed is not None:
            _store_key(state_dir, from_text(bundle.device_seed, PUBLIC_KEY_SIZE))
    except OSError as error:
        text = f"{state_dir} takes no enrolment: {error.strerror}"
        raise TrustError(text) from error
    TrustFile.store_root(state_dir, keys_topic, bundle.root)


def _store_key(state_dir: Path, seed: bytes) -> None:
    """Store the key that asked for the bundle; `TrustError` where this device has another one."""
    from device_agent.trust.identity import IDENTITY_FILE, open_identity  # noqa: PLC0415
    from schemas.signing.ed25519 import Signer  # noqa: PLC0415
    from schemas.signing.key_files import write_key  # noqa: PLC0415

    asked = Signer(seed)
    try:
        write_key(state_dir / IDENTITY_FILE, asked)
    except FileExistsError as error:
        if open_identity(state_dir).kid != asked.kid:
            text = f"{state_dir / IDENTITY_FILE} is another key than the one that asked for the bundle"
            raise TrustError(text) from error
