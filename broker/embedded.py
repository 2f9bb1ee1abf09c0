"""The embedded broker as a program: `python -m broker.embedded --port 1883 --directory state`.

Rule: loopback only. It has neither passwords nor an access list, so only this machine may reach it.

It is rumqttd 0.20 out of the PyPI package `iotcore`, for the demo on a machine without mosquitto. Where it differs from
mosquitto (`tests/integration/test_broker_contract.py` holds each line to be true):

- Nothing is written to disk. A restart forgets sessions and retained messages, which mosquitto may keep.
- A session never expires, not even one without an expiry interval; only a clean start ends it.
- Its queue is a topic's log: an absent client finds all of it, where mosquitto drops what exceeds 200 messages.
- A message that is delivered again has neither the DUP flag nor its former packet id.
- A client's Receive Maximum is ignored (at most 100 messages wait for acknowledgement), and acknowledgements out of
  order end the connection. Of the retained messages that match one subscription at QoS 1, at most 100 arrive.
- No Local is ignored: a client that subscribes to a topic receives its own messages to it.
- A retained message is not sent again when a session that has the subscription subscribes again.
- DISCONNECT with reason 0x04 does not publish the will.
- A publish without subscribers is acknowledged with 0x00, not with 0x10.
- Messages up to 192 KiB pass; more ends the connection. There is no refusal with 0x95.
- QoS 2 works, an empty client id is given a name, and `$SYS` does not exist (subscribing to it ends the connection).
"""

import argparse
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from broker.configuration import LOOPBACK, embedded_toml
from broker.errors import BrokerMissing

_POLL = 0.005


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until a signal ends the process. Prints `embedded broker running` once it listens."""
    options = _parse(arguments)
    try:
        from iotcore.iotcore import IotCoreBroker  # noqa: PLC0415 - an optional package
    except ImportError as error:
        message = "the embedded broker is not installed: run `pip install 'backhaul[demo]'`"
        raise BrokerMissing(message) from error
    # rumqttd logs every packet as an error; a real error ends the process or is in the exception.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    config = options.directory / "embedded.toml"
    config.write_text(embedded_toml(port=options.port))
    threading.Thread(target=_announce, args=(options.port,), daemon=True).start()
    IotCoreBroker(config_path=str(config)).run_forever()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m broker.embedded", description="MQTT broker on loopback.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True, help="where its configuration is written")
    parser.add_argument("--host", default=LOOPBACK, help="loopback only: this broker has no access list")
    options = parser.parse_args(arguments)
    if options.host != LOOPBACK:
        parser.error(f"the embedded broker has no access list and listens on {LOOPBACK} only; use mosquitto")
    return options


def _announce(port: int) -> None:
    """Wait until a connection to the port arrives in this process, and print so."""
    while True:
        with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1.0) as probe:
            time.sleep(_POLL)
            if _is_ours(probe):
                sys.stdout.write("embedded broker running\n")
                sys.stdout.flush()
                return
        time.sleep(_POLL)


def _is_ours(probe: socket.socket) -> bool:
    """Whether the other end of the connection is a socket of this process, not of an earlier owner of the port."""
    for entry in Path("/dev/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as candidate:
            if candidate.getpeername() == probe.getsockname():
                return True
    return False


if __name__ == "__main__":
    main()
