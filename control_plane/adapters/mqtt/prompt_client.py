"""aiomqtt with two shortcuts: a packet that is written at once, and messages that are delivered without a queue.

Rule: the only module that uses private parts of aiomqtt. `pyproject.toml` bounds its version, and
`tests/unit/control_plane/test_prompt_client.py` fails when those parts change.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import aiomqtt


class PromptClient(aiomqtt.Client):
    """A client that can write a packet immediately.

    aiomqtt registers the socket with the event loop and writes when the loop reports it writable, after all callbacks
    that are already scheduled. For many packets that is better, since one wake-up of the broker serves all of them.
    """

    _write_now = False

    def write_next_now(self) -> None:
        """Write the next packet at once, if it is sent in this iteration of the event loop."""
        self._write_now = True
        asyncio.get_running_loop().call_soon(self._iteration_ended)

    def _iteration_ended(self) -> None:
        self._write_now = False

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:  # noqa: ANN401 - paho's
        if self._write_now:
            self._write_now = False
            try:
                client.loop_write()
            except Exception as error:  # noqa: BLE001 - any failure to write ends the connection
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)
                return
            if client.socket() is None or not client.want_write():
                return
        super()._on_socket_register_write(client, userdata, sock)


class DeliveringQueue(asyncio.Queue[aiomqtt.Message]):
    """aiomqtt's queue of incoming messages; once `deliver` is set, it passes each message on and stays empty.

    Iterating `client.messages` costs a task and a wait for each message.
    """

    deliver: Callable[[aiomqtt.Message], None] | None = None

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Deliver the message, or queue it while `deliver` is not set."""
        if self.deliver is None:
            super().put_nowait(item)
        else:
            self.deliver(item)
