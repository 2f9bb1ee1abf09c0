"""A large fleet as rows of a database, before a control plane starts on it.

Rule: rows are made by the product's own types, so that they are what a fleet would have left.
"""

import time
import uuid
from typing import Final

from control_plane.adapters.database.database import SqlDatabase
from control_plane.domain.clients import Client
from control_plane.domain.uploads.model import Origin, State, Upload
from schemas.topics import CONTROL_PLANE

BATCH: Final = 500
SITES: Final = 500
"""Values of the label `site`."""

OFFLINE: Final = 0.1
"""The share of clients that are offline: those with the highest numbers."""

_SIZE: Final = 64 * 1024 * 1024
_DEADLINE: Final = 24 * 3600


async def fill(url: str, clients: int, uploading: int) -> None:
    """Create `clients`, of which the first `uploading` have an upload in progress each."""
    store = SqlDatabase.open(url)
    now = time.time()
    for start in range(0, clients, BATCH):
        some = [
            client(number, now, online=number < clients * (1 - OFFLINE))
            for number in range(start, min(start + BATCH, clients))
        ]
        moving = [upload(number, now) for number in range(start, min(start + BATCH, uploading))]

        def write(records, some=some, moving=moving):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            records.clients.save(some)
            for one in moving:
                records.uploads.add(one)

        await store.write(write)
    await store.close()


def client_id(number: int) -> str:
    """The id of the client with this number; ids are in the order of numbers."""
    return f"client-{number:06}"


def client(number: int, now: float, *, online: bool) -> Client:
    """A client that was seen just now."""
    return Client(
        client_id=client_id(number),
        install_id=f"install-{number}",
        epoch=1,
        sequence=0,
        online=online,
        seen_at=now,
        connected_at=now,
        registered_at=now,
        labels={"site": f"site-{number % SITES}", "ring": "early" if number % 2 else "late"},
    )


def upload(number: int, now: float) -> Upload:
    """An upload of this client, a part of which was sent."""
    name = f"video-{number:06}.mp4"
    return Upload(
        client_id=client_id(number),
        upload_id=str(uuid.uuid4()),
        owner=CONTROL_PLANE,
        origin=Origin.REST,
        s3_key=f"uploads/{client_id(number)}/{name}",
        token=uuid.uuid4().hex[:16],
        created_at=now - number,
        updated_at=now,
        deadline=now + _DEADLINE,
        touched_at=now,
        file_path=f"/data/{name}",
        file_size=_SIZE,
        state=State.IN_PROGRESS,
        sequence=1,
        bytes_sent=_SIZE // 1000 * (number % 1000),
        client_busy=True,
    )
