"""The floor for an agent at rest: paho's own loop on one connection with the agent's keep-alive, and nothing else.

python -m benchmarks.bare_mqtt PORT
"""

import sys

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

KEEPALIVE = 30


def main(port: int) -> None:
    """Connect, subscribe, write one line, and stay."""
    client = Client(CallbackAPIVersion.VERSION2, "bare", protocol=MQTTProtocolVersion.MQTTv5)
    client.on_connect = lambda client, *_: client.subscribe("fleet/v1/bare/command", 1)
    client.on_subscribe = lambda *_: print("online", flush=True)  # noqa: T201 - the benchmark waits for it
    client.connect("127.0.0.1", port, KEEPALIVE)
    client.loop_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
