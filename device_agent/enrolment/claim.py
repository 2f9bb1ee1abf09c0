"""The secret of the claim, in the state folder, from the enrolment until an operator enrols the device again.

Rule: standard library and `schemas` only; the secret is never logged, and never leaves the device.
"""

from pathlib import Path
from typing import Final

from device_agent.state.atomic_file import replace_file
from schemas.errors import SchemaError
from schemas.signing.canonical import from_text, to_text
from schemas.signing.claims import CLAIM_SECRET_SIZE

CLAIM_NAME: Final = "claim"
"""The name of its file."""


def read_claim_secret(state_dir: Path) -> bytes | None:
    """The 32 bytes of the secret; None where the device was not enrolled, or the file is damaged. `OSError`."""
    try:
        return from_text((state_dir / CLAIM_NAME).read_text().strip(), CLAIM_SECRET_SIZE)
    except (FileNotFoundError, SchemaError, UnicodeError):
        return None


def store_claim_secret(state_dir: Path, secret: bytes) -> None:
    """Write it, durable on return, readable by the owner alone; `OSError`."""
    replace_file(state_dir / CLAIM_NAME, [f"{to_text(secret)}\n".encode()])
