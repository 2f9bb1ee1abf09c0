"""The key of this device, in its state folder.

Rule: made once, readable by the agent's user alone, and never sent. Another key later is another device.
"""

from pathlib import Path
from typing import Final

from device_agent.errors import TrustError
from device_agent.state.atomic_file import PRIVATE_FOLDER
from schemas.signing.ed25519 import Signer
from schemas.signing.key_files import KeyFileError, create_key, read_key

IDENTITY_FILE: Final = "identity.json"


def open_identity(state_dir: Path) -> Signer:
    """The key in `state_dir`, made if there is none; `TrustError` when its file cannot be used."""
    path = state_dir / IDENTITY_FILE
    try:
        return _opened(path)
    except KeyFileError as error:
        text = f"the key of this device cannot be used: {error}"
        raise TrustError(text) from error
    except OSError as error:
        text = f"the key of this device cannot be used: {path}: {error.strerror}"
        raise TrustError(text) from error


def _opened(path: Path) -> Signer:
    try:
        return read_key(path)
    except FileNotFoundError:
        _require_no_dangling_link(path.parent)
        _require_no_dangling_link(path)
        path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    try:
        return create_key(path)
    except FileExistsError:
        # Another process, such as the enrolment, has made it in this moment.
        return read_key(path)


def _require_no_dangling_link(path: Path) -> None:
    """`KeyFileError` for a link without a target, such as on a disk that is not mounted: the key may be there still."""
    if path.is_symlink() and not path.exists():
        text = f"{path}: a link that leads nowhere: mount what it leads to, or remove the link"
        raise KeyFileError(text)
