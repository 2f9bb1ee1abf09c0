"""The request of this device for a bundle, in a file beside the bundle: a restart continues it.

Rule: its keys never leave the device; the file is of mode 0600, and is deleted once the bundle is stored.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from device_agent.state.atomic_file import replace_file
from schemas.messages import KeyText
from schemas.signing.enrolment import DeviceCode

STRIDE: Final = 2**20
"""Each start polls with numbers above all those of the start before, without storing every one of them."""

_MAX: Final = 4096


class StoredRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The keys, and the request that waits, if one does: `device_code`, and what was shown and agreed with it."""

    url: str
    root_sha256: str
    seed: KeyText
    opens: KeyText
    """The private X25519 key to which the bundle is sealed."""

    device_code: DeviceCode | None = None
    user_code: str = ""
    interval: Annotated[int, Meta(ge=1, le=3_600)] = 5
    sequence: Annotated[int, Meta(ge=0, le=2**53 - 1)] = 0

    def __repr__(self) -> str:
        return f"StoredRequest({self.url!r})"


def request_place(out: Path) -> Path:
    """The file of the request for this bundle."""
    return out.with_name(f"{out.name}.request")


def read_request(path: Path, url: str, root_sha256: str) -> StoredRequest | None:
    """The request to this control plane; None where there is none, or the file is damaged. `OSError`."""
    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(_MAX), type=StoredRequest)
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return found if (found.url, found.root_sha256) == (url, root_sha256) else None


def store_request(path: Path, request: StoredRequest) -> None:
    """Write it, durable on return; `OSError` leaves the former one."""
    replace_file(path, [msgspec.json.encode(request)])
