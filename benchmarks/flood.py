"""Publishes Status of many devices at a steady rate.

python -m benchmarks.flood PORT MESSAGES RATE DEVICES
"""

import asyncio
import sys

from broker.configuration import LOOPBACK
from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.packets import Connect, Publish, text
from schemas.codec import encode
from schemas.messages import CurrentUpload, Status
from schemas.topics import Topics

STEP = 0.01


class _Publisher:
    """Waits for the connection only."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()

    def connected(self, connection: MqttConnection) -> None:  # noqa: ARG002 - the listener's signature
        """The connection stands."""
        self.ready.set()

    def received(self, message: Publish) -> None:
        """Nothing is subscribed to."""

    def acknowledged(self, packet_id: int, reason: int) -> None:
        """Nothing is waited for."""

    def disconnected(self, connection: MqttConnection, why: str) -> None:
        """Nothing to do: the benchmark has ended."""


async def main(port: int, messages: int, rate: int, devices: int) -> None:
    """Publish them all, `rate` a second."""
    publisher = _Publisher()
    connection = MqttConnection(Connect(client_id="benchmark-flood", clean_start=True), publisher)
    await asyncio.get_running_loop().create_connection(lambda: connection, LOOPBACK, port)
    await publisher.ready.wait()
    topics = [text(Topics().status(f"flood-{number}")) for number in range(devices)]
    loop = asyncio.get_running_loop()
    started = loop.time()
    for number in range(messages):
        early = started + number / rate - loop.time()
        if early > STEP:
            await asyncio.sleep(early)
        connection.publish(topics[number % devices], _status(number, devices), qos=0)
    await asyncio.sleep(1)
    connection.close()
    await asyncio.sleep(0.1)


def _status(number: int, devices: int) -> bytes:
    sent = number // devices * 5_242_880
    upload = CurrentUpload(f"{number % devices:032x}", 1, "/data/file.bin", 12.5, sent, 10**10, number // devices, 2000)
    return encode(Status("uploading", f"flood-{number % devices}", 42, upload, (upload,)))


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
