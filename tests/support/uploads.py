"""Uploads and events for tests of the domain and the services.

Rule: every builder has sensible defaults, so that a test names only what it is about.
"""

import base64
import hashlib
from typing import Any

from control_plane.domain.uploads.events import Dispatched, Event, MultipartCreated, PartsRequested, Succeeded
from control_plane.domain.uploads.machine import apply
from control_plane.domain.uploads.model import Origin, Upload
from schemas.parts import MIB, plan_parts
from schemas.topics import CONTROL_PLANE
from schemas.values import Fingerprint, WantedPart

CHUNK = 5 * MIB
FINGERPRINT = Fingerprint(size=12 * MIB, mtime_ns=3, ctime_ns=4, device=1, inode=2)


def md5_of(number: int, salt: str = "") -> str:
    """A digest as the wire has it."""
    return base64.b64encode(hashlib.md5(f"{number}{salt}".encode(), usedforsecurity=False).digest()).decode()


def an_upload(**changes: object) -> Upload:
    """A queued upload of client `restaurant-1`."""
    fields: dict[str, Any] = {
        "client_id": "restaurant-1",
        "upload_id": "u1",
        "owner": CONTROL_PLANE,
        "origin": Origin.REST,
        "s3_key": "uploads/restaurant-1/20251101-123456-a.bin",
        "token": "tokentoken",
        "created_at": 0.0,
        "updated_at": 0.0,
        "deadline": 1000.0,
        "file_path": "/data/a.bin",
    }
    return Upload(**{**fields, **changes})


def wanted(file_size: int, *numbers: int, salt: str = "") -> tuple[WantedPart, ...]:
    """What a client offers for these parts of a file of this size."""
    plan = plan_parts(file_size, CHUNK)
    return tuple(WantedPart(n, plan.part(n).size, md5_of(n, salt)) for n in numbers or plan.numbers)


def an_offer(file_size: int = 12 * MIB, **changes: object) -> PartsRequested:
    """The first offer of a file of three parts."""
    fields: dict[str, Any] = {
        "now": 2.0,
        "attempt": 1,
        "sequence": 1,
        "file_size": file_size,
        "fingerprint": FINGERPRINT,
        **({} if "wanted" in changes else {"wanted": wanted(file_size)}),
    }
    return PartsRequested(**{**fields, **changes})


def after(upload: Upload, *events: Event) -> Upload:
    """The upload after these events."""
    for event in events:
        upload, _ = apply(upload, event)
    return upload


def dispatched(**changes: object) -> Upload:
    """Dispatched to the client."""
    return after(an_upload(**changes), Dispatched(now=1.0))


def opened(**changes: object) -> Upload:
    """Offered, with the multipart upload `s3-1` open."""
    return after(dispatched(**changes), an_offer(), MultipartCreated(now=3.0, attempt=1, s3_upload_id="s3-1"))


def completing(**changes: object) -> Upload:
    """All three parts are stored."""
    etags = {1: '"e1"', 2: '"e2"', 3: '"e3"'}
    return after(opened(**changes), Succeeded(now=4.0, attempt=1, sequence=2, etags=etags))
