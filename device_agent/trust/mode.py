"""Whether this device is signed: a root of trust lies in its state folder, or none does.

Rule: nothing else decides, and nothing is negotiated. Nothing is imported here that an unsigned agent does not need.
"""

import importlib.util
import os
from pathlib import Path
from typing import Final

from device_agent.errors import TrustError

TRUST_FILE: Final = "trust.json"

UNSIGNED: Final = "unsigned"
SIGNED: Final = "signed"


def is_signed(state_dir: Path) -> bool:
    """Whether a root of trust is stored; `TrustError` where that cannot be known, or PyNaCl is missing for it."""
    path = state_dir / TRUST_FILE
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        text = f"{path} cannot be read: {error.strerror}; without it nothing tells whose commands to obey"
        raise TrustError(text) from error
    if importlib.util.find_spec("nacl") is None:
        text = f"{path} demands signed commands, and PyNaCl is not installed: pip install 'backhaul[signing]'"
        raise TrustError(text)
    return True
