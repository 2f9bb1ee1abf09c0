"""aiomqtt with what it lacks: prompt writes, delivery without a queue, the broker's terms, and the reason of an end.

Rule: the only module that uses private parts of aiomqtt and of paho. `pyproject.toml` bounds their versions, and
`tests/unit/control_plane/test_prompt_client.py` fails when those parts change.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiomqtt
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from control_plane.adapters.mqtt.terms import BrokerTerms, reason_text

GOODBYE: Final = 1.0
"""Seconds to wait for the end of a connection after DISCONNECT."""

UNANSWERED: Final = "the broker closed the connection before it answered"
UNCERTIFIED: Final = f"{UNANSWERED}: it may require a certificate (MQTT_CERTIFICATE)"
"""With TLS 1.3 a client learns only after its own part of the handshake that its certificate is missing or refused."""

T = TypeVar("T")


class PromptClient(aiomqtt.Client):
    """A client for one connection. It can write a packet at once, and keeps to the terms of the CONNACK.

    aiomqtt registers the socket with the event loop and writes when the loop reports it writable, after all callbacks
    that are already scheduled. For many packets that is better, since one wake-up of the broker serves all of them.
    """

    terms = BrokerTerms()
    ending: str | None = None
    """Why the broker refused or ended the connection, or how it was lost."""

    _write_now = False
    _window = asyncio.Semaphore(0)

    async def __aenter__(self) -> Self:
        """Connect; a connection that is not accepted is closed."""
        try:
            return await super().__aenter__()
        except BaseException:
            self._close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Disconnect within `GOODBYE`.

        aiomqtt raises `MqttError` when that fails, also in place of a `CancelledError`: the caller would take its own
        cancellation for a lost connection.
        """
        self.timeout = GOODBYE
        try:
            await super().__aexit__(kind, error, at)
        except aiomqtt.MqttError:
            pass
        finally:
            self._close()

    @property
    def keepalive(self) -> int:
        """Seconds between two signs of life."""
        return self.terms.keepalive(self._keepalive)

    @property
    def answered(self) -> bool:
        """Whether no PINGREQ waits for its PINGRESP."""
        return not self._client._ping_t  # noqa: SLF001

    def ping(self) -> None:
        """Send a PINGREQ. paho closes a connection if its PINGRESP does not come within the keepalive."""
        self._client._send_pingreq()  # noqa: SLF001

    def end(self, reason: str) -> None:
        """End the connection for the task that waits for its messages."""
        self.ending = self.ending or reason
        if not self._disconnected.done():
            self._disconnected.set_exception(aiomqtt.MqttError(reason))

    def write_next_now(self) -> None:
        """Write the next packet at once, if it is sent in this iteration of the event loop."""
        self._write_now = True
        asyncio.get_running_loop().call_soon(self._iteration_ended)

    async def free_place(self) -> None:
        """Take one of the places for unacknowledged messages; `MqttError` when none is free in time.

        Only the PUBACK frees the place again: a message that was given up counts as sent until then (MQTT 5.0 section
        4.9).
        """
        if self._window.locked():
            await self._wait_for(self._window.acquire(), None)
        else:
            await self._window.acquire()

    def return_place(self) -> None:
        """Free a place for a message that was not sent."""
        self._window.release()

    def _iteration_ended(self) -> None:
        self._write_now = False

    def _close(self) -> None:
        self._client._sock_close()  # noqa: SLF001
        for end in (self._connected, self._disconnected):
            if end.done() and not end.cancelled():
                # Retrieved here, or asyncio reports it as lost when the task was cancelled meanwhile.
                end.exception()

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109 - aiomqtt's signature
        # aiomqtt's own uses asyncio.wait_for, which on 3.11 drops a cancellation that arrives together with the result.
        try:
            async with asyncio.timeout(self.timeout if timeout is None else timeout):
                return await fut
        except TimeoutError:
            message = "no answer within the time limit"
            raise aiomqtt.MqttError(message) from None

    def _on_connect(
        self,
        client: Any,  # noqa: ANN401 - paho's
        userdata: Any,  # noqa: ANN401 - paho's
        flags: Any,  # noqa: ANN401 - paho's
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.terms = BrokerTerms.read(properties)
        self._window = asyncio.Semaphore(self.terms.receive_maximum)
        # paho takes the broker's value as it is: 0 would end the connection at the first ping.
        client._keepalive = self.keepalive  # noqa: SLF001
        if reason_code.is_failure:
            self.ending = f"the broker refused the connection: {reason_text(reason_code, properties)}"
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: Any,  # noqa: ANN401 - paho's
        userdata: Any,  # noqa: ANN401 - paho's
        flags: Any,  # noqa: ANN401 - paho's
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self.ending = f"the broker ended the connection: {reason_text(reason_code, properties)}"
        elif self.ending is None:
            self.ending = f"the connection was lost: {reason_code}" if self._connected.done() else self._unanswered
        super()._on_disconnect(client, userdata, flags, reason_code, properties)
        if not self._connected.done():
            # aiomqtt would wait for the CONNACK until its time limit.
            self._connected.set_exception(aiomqtt.MqttError(self.ending))

    @property
    def _unanswered(self) -> str:
        return UNANSWERED if self._client._ssl_context is None else UNCERTIFIED  # noqa: SLF001 - paho tells nobody

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:  # noqa: ANN401 - paho's
        self._window.release()
        super()._on_publish(client, userdata, mid, reason_code, properties)

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
