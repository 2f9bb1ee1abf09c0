"""One enrolled device floods the control plane with everything that it may publish; the others are served meanwhile.

Rule: counts and order are asserted, and one generous bound on time: the machine of the tests may be slow.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

import pytest

from schemas.topics import Topics
from tests.support.fault_sites import FaultSite
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import Closed, connected

pytestmark = pytest.mark.slow

TOPICS: Final = Topics()
SECONDS: Final = 8.0
OFFERS: Final = 400
"""Offers of unknown uploads a second; each twentieth of a second brings two statuses and a hello as well."""


def response(message_id: str, payload: Mapping[str, object], **more: object) -> bytes:
    fields = {"message_id": message_id, "action": "download_file", "status": "success", "epoch": 1, **more}
    return json.dumps({**fields, "payload": payload}).encode()


STATUS: Final = json.dumps({"status": "uploading", "uploads": [{"upload_id": f"u{n}"} for n in range(4_000)]}).encode()
FULL_STATUS: Final = json.dumps(
    {"status": "uploading", "uploads": [{"upload_id": f"u{n}", "bytes_sent": n} for n in range(64)]}
).encode()
HELLO: Final = response(
    "h",
    {
        "install_id": "i",
        "active": [{"upload_id": f"h{n}", "attempt": 1, "sequence": 1, "status": "success"} for n in range(500)],
    },
    action="hello",
)


@contextmanager
def flooding(site: FaultSite, name: str) -> Iterator[None]:
    """A device that publishes statuses of thousands of uploads, hellos and offers."""
    ended = threading.Event()

    def flood() -> None:
        with suppress(Closed, OSError), connected(site.broker.address.port, Connect(name)) as wire:
            number, began = 0, time.monotonic()
            while not ended.wait(max(0.0, began + number / OFFERS - time.monotonic())):
                number += 1
                about = {"upload_id": f"x{number}", "owner": "control-plane", "file_path": "/x"}
                wire.publish(TOPICS.response(name), response(f"x{number}", about, status="in_progress", sequence=1))
                if number % 20 == 0:
                    wire.publish(TOPICS.status(name), STATUS)
                    wire.publish(TOPICS.status(name), FULL_STATUS)
                    wire.publish(TOPICS.response(name), HELLO)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)


def test_a_flood_of_one_device_delays_no_other(site: FaultSite, name: str) -> None:
    site.attach(name)
    loud = f"loud-{name[-20:]}"
    before = len(site.plane.log)
    with flooding(site, loud):
        site.until(lambda: site.counted("hello.shed") + site.counted("message.shed") > 0, "the flood")
        end = time.monotonic() + SECONDS
        number = 0
        while time.monotonic() < end:
            number += 1
            path = site.file(name, f"{number}.bin", 1000 + number)
            # A few seconds where the machine does nothing else; behind the flood it would end at the site's limit.
            site.completed(site.trigger(name, path), path)
    assert site.counted("message.fault") == 0
    lines = [line for line in site.plane.log[before:].splitlines() if f'"{loud}"' in line]
    # Ten lines of each kind at most, though thousands of events were counted.
    assert 0 < len(lines) <= 150, lines[:5]
    assert len(site.get("/uploads?limit=500&client_id=" + loud)["uploads"]) == 0
