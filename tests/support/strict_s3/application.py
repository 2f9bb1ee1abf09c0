"""The strict double as an ASGI application: verify, receive, execute, respond, and fail where a fault is planted.

Rule: a request changes the state only if its signature, length and digests are correct. `/_strict/` is the tests'
interface: `GET events`, `POST faults` (a JSON list), `DELETE faults`, `PUT quirks` (a JSON list
of names).
"""

import asyncio
import itertools
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

from tests.support.strict_s3 import objects, uploads
from tests.support.strict_s3.answers import Answer, Call, Options
from tests.support.strict_s3.bodies import DATA, Promise, Receive, Receiver, Reset, promised
from tests.support.strict_s3.events import STORED, EventLog, StoreEvent
from tests.support.strict_s3.faults import Fault, FaultScript, Kind
from tests.support.strict_s3.quirks import Manner, Quirk
from tests.support.strict_s3.refusals import Code, Refusal, Vanished, error_document
from tests.support.strict_s3.requests import Operation, Request, read_request
from tests.support.strict_s3.signatures import Keys, verify
from tests.support.strict_s3.storage import Storage

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Scope = MutableMapping[str, Any]

ADMIN: Final = "/_strict/"
_POLL: Final = 0.02
_DO: Final[Mapping[Operation, Callable[[Call], Answer]]] = {
    Operation.CREATE_BUCKET: objects.create_bucket,
    Operation.HEAD_BUCKET: objects.head_bucket,
    Operation.DELETE_BUCKET: objects.delete_bucket,
    Operation.GET_BUCKET_LOCATION: objects.get_bucket_location,
    Operation.PUT_BUCKET_RULES: objects.put_bucket_rules,
    Operation.GET_BUCKET_RULES: objects.get_bucket_rules,
    Operation.LIST_OBJECTS: objects.list_objects,
    Operation.PUT_OBJECT: objects.put_object,
    Operation.GET_OBJECT: objects.get_object,
    Operation.HEAD_OBJECT: objects.head_object,
    Operation.DELETE_OBJECT: objects.delete_object,
    Operation.CREATE_MULTIPART_UPLOAD: uploads.create_multipart_upload,
    Operation.UPLOAD_PART: uploads.upload_part,
    Operation.COMPLETE_MULTIPART_UPLOAD: uploads.complete_multipart_upload,
    Operation.ABORT_MULTIPART_UPLOAD: uploads.abort_multipart_upload,
    Operation.LIST_PARTS: uploads.list_parts,
    Operation.LIST_MULTIPART_UPLOADS: uploads.list_multipart_uploads,
}


@dataclass(slots=True)
class Exchange:
    """One request under way, and the content of its line in the log."""

    request: Request
    fault: Fault | None
    received: int = 0
    status: int | None = None
    outcome: str = STORED
    done: bool = False
    logged: bool = False


class StrictS3:
    """One double; `faults`, `events` and `storage` are for a test in the same process."""

    def __init__(
        self, directory: Path, keys: Keys, options: Options | None = None, quirks: Iterable[Quirk] = ()
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.keys = keys
        self.options = options or Options()
        self.quirks = set(quirks)
        self.faults = FaultScript()
        self.events = EventLog(directory / "events.jsonl")
        self.storage = Storage(directory, keep_bytes=self.options.keep_bytes)
        self.transports: dict[tuple[str, int], asyncio.Transport] = {}
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = read_request(scope)
        if request.raw_path.startswith(ADMIN):
            await self._administer(request, receive, send)
            return
        exchange = Exchange(request, self.faults.strike(request))
        try:
            self._send_interim(scope)
            await self._serve(exchange, receive, send)
        except Reset:
            exchange.outcome, exchange.status = "reset", None
            self._cut(scope)
        except (Vanished, asyncio.CancelledError):
            exchange.outcome, exchange.status = "disconnected", None
        finally:
            if not exchange.logged:
                self._log(exchange)

    async def _serve(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(exchange, receive)
        except Refusal as refusal:
            exchange.outcome = refusal.code
            answer = Answer(refusal.status, body=error_document(refusal.code, refusal.message))
        for manner in self._manners():
            await asyncio.sleep(manner.seconds)
            answer = answer if manner.answer is None else manner.answer(exchange.request, answer)
        exchange.status, exchange.done = answer.status, answer.done
        if exchange.fault is not None:
            answer = await self._spoiled(exchange, exchange.fault, answer)
        exchange.status = answer.status
        # Before the client receives it: a test that has its response finds it in the log.
        self._log(exchange)
        await self._send(exchange.request, answer, send)

    async def _answer(self, exchange: Exchange, receive: Receive) -> Answer:
        """The response without a fault; the body is received in any case, so the client receives the response."""
        request, trusted = self._trusted(exchange.request)
        exchange.request = request
        is_data = request.operation in DATA and isinstance(trusted, Promise)
        path = self.storage.new_path() if is_data else None
        receiver = Receiver(path, exchange.fault, self.options.idle_timeout)
        try:
            blob = await receiver.take(receive, is_data=is_data)
            if exchange.fault is not None and not _is_done(exchange.fault):
                blob.delete()
                return Answer(204)
            document = bytes(receiver.document)
            call = Call(request, blob, document, _raised(trusted), self.storage, self.options, self._now())
            for manner in self._manners():
                call = call if manner.demand is None else manner.demand(call)
            call.promise.check(blob)
            answer = _do(call)
            for manner in self._manners():
                answer = answer if manner.after is None else manner.after(call, answer)
            return answer
        except BaseException:
            if path is not None:
                path.unlink(missing_ok=True)
            raise
        finally:
            exchange.received = receiver.received

    def _trusted(self, request: Request) -> tuple[Request, Promise | Refusal]:
        """The request as it arrives, and what it promises if its signature is correct."""
        keys = self.keys
        try:
            for manner in self._manners():
                request = request if manner.arrive is None else manner.arrive(request)
                keys = keys if manner.region is None else replace(keys, region=manner.region)
            return request, promised(request, verify(request, keys, self._now()))
        except Refusal as refusal:
            return request, refusal

    def _manners(self) -> list[Manner]:
        """The quirks in force, in the order of their entries."""
        return [quirk.value for quirk in Quirk if quirk in self.quirks]

    def _send_interim(self, scope: Scope) -> None:
        transport = self.transports.get(tuple(scope["client"]))
        for manner in self._manners():
            if manner.interim and transport is not None and scope["method"] == "PUT":
                transport.write(manner.interim)

    async def _spoiled(self, exchange: Exchange, fault: Fault, answer: Answer) -> Answer:
        """The response as the fault changes it; a rejection stays a rejection."""
        if fault.kind is Kind.SLOW:
            await asyncio.sleep(fault.seconds)
        while fault.kind is Kind.HELD and self.faults.in_force(fault):  # noqa: ASYNC110 - cleared by another thread
            await asyncio.sleep(_POLL)
        if answer.status >= 300:
            return answer
        match fault.kind:
            case Kind.ERROR | Kind.ERROR_IN_200:
                exchange.outcome = fault.code
                status = fault.status if fault.kind is Kind.ERROR else 200
                headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                return Answer(status, headers, error_document(fault.code, "Planted by the test"))
            case Kind.PAGE:
                exchange.outcome = "page"
                return Answer(fault.status, {"Content-Type": "text/plain"}, f"{fault.status} page not found\n".encode())
            case Kind.EMPTY_200:
                return Answer(200)
            case Kind.LOST_RESPONSE:
                raise Reset
            case Kind.NO_ETAG:
                return replace(answer, headers={k: v for k, v in answer.headers.items() if k != "ETag"})
        return answer

    async def _send(self, request: Request, answer: Answer, send: Send) -> None:
        headers = {"Date": formatdate(self._now(), usegmt=True), "x-amz-request-id": "STRICT", **answer.headers}
        if answer.stream is None and request.method != "HEAD":
            headers["Content-Length"] = str(len(answer.body))
        pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
        for chunk in answer.stream or ():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        body = b"" if request.method == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    async def _administer(self, request: Request, receive: Receive, send: Send) -> None:
        receiver = Receiver(None, None, self.options.idle_timeout)
        await receiver.take(receive, is_data=False)
        what = (request.method, request.raw_path.removeprefix(ADMIN))
        body = b""
        if what == ("POST", "faults"):
            self.faults.add(*map(Fault.read, json.loads(receiver.document)))
        elif what == ("DELETE", "faults"):
            self.faults.clear()
        elif what == ("PUT", "quirks"):
            self.quirks = {Quirk[name] for name in json.loads(receiver.document)}
        elif what == ("GET", "events"):
            body = "".join(f"{event.to_line()}\n" for event in self.events).encode()
        await self._send(request, Answer(body=body), send)

    def _cut(self, scope: Scope) -> None:
        """Reset the connection, as a crash would: SO_LINGER of zero makes close(2) send RST (socket(7))."""
        transport = self.transports.get(tuple(scope["client"]))
        if transport is not None:
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()

    def _log(self, exchange: Exchange) -> None:
        request, fault = exchange.request, exchange.fault
        event = StoreEvent(
            number=next(self._numbers),
            at=time.time(),
            operation=request.operation,
            bucket=request.bucket,
            key=request.key,
            part_number=request.part_number,
            upload_id=request.upload_id,
            received=exchange.received,
            outcome=exchange.outcome,
            status=exchange.status,
            done=exchange.done,
            fault=None if fault is None else fault.kind,
        )
        exchange.logged = True
        self.events.append(event)

    def _now(self) -> float:
        return time.time() + self.options.clock_skew


def _do(call: Call) -> Answer:
    work = _DO.get(call.request.operation)
    if work is None:
        raise Refusal(Code.NOT_IMPLEMENTED, "A header or query you provided implies functionality not implemented")
    return work(call)


def _raised(trusted: Promise | Refusal) -> Promise:
    if isinstance(trusted, Refusal):
        raise trusted
    return trusted


def _is_done(fault: Fault) -> bool:
    if fault.kind in {Kind.ERROR, Kind.ERROR_IN_200, Kind.EMPTY_200}:
        return fault.done
    return fault.kind not in {Kind.PRETEND, Kind.PAGE}
