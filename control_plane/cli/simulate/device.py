"""One simulated device: its hello, its uploads, and its responses to commands.

Rule: every command gets the response that protocol.md prescribes, a repeated one the latest response: an owner takes
silence for a device that does nothing, and gives its upload up. Failures are reported to the owner and counted.
"""

import asyncio
import math
import random
import secrets
from collections import OrderedDict
from enum import StrEnum
from typing import Final

import msgspec

from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.environment import Environment
from control_plane.cli.simulate.http_pool import HttpAnswer, RequestFailed
from control_plane.cli.simulate.identity import NO_ACCOUNT, Account, SimulatedIdentity
from control_plane.cli.simulate.packets import Publish, TopicFilter
from control_plane.cli.simulate.publisher import VERSION, Publisher
from control_plane.cli.simulate.selections import Selections
from control_plane.cli.simulate.upload import SimulatedUpload
from schemas.codec import decode_command, encode
from schemas.errors import BadCommand, SchemaError
from schemas.messages import (
    MAX_FILES,
    CancelUpload,
    CloseUpload,
    Command,
    CommandPayload,
    DownloadFile,
    FileList,
    GrantParts,
    Health,
    HealthCheck,
    Hello,
    ListFiles,
    Response,
    ResponsePayload,
    SelectFiles,
    Status,
    UploadReport,
)
from schemas.signing.canonical import SignedKind
from schemas.signing.documents import KeyRole
from schemas.topics import Channel
from schemas.values import ERRORS, Action, ErrorCode, Outcome, PresignedPart, ResponseStatus

HELLO_JITTER: Final = 30.0
"""Seconds over which hellos are spread after the control plane's birth message."""

REPEAT_AFTER: Final = 30.0
OLDER: Final = "a command of an older attempt"
_NOT_STORED: Final = 2
"""Retain Handling: a stored command would be obeyed at each connect."""

_TOMBSTONES: Final = 64
_STATUSES: Final = {
    Outcome.COMPLETED: ResponseStatus.SUCCESS,
    Outcome.CANCELLED: ResponseStatus.CANCELLED,
    Outcome.REJECTED: ResponseStatus.REJECTED,
}


class Trouble(StrEnum):
    """Which uploads a device fails, as a file that cannot be read."""

    NEVER = "never"
    ONCE = "the first upload of each file"
    ALWAYS = "always"


class SimulatedDevice:
    """Holds its uploads, and publishes with its `publisher`."""

    def __init__(
        self,
        client_id: str,
        environment: Environment,
        trouble: Trouble = Trouble.NEVER,
        account: Account = NO_ACCOUNT,
    ) -> None:
        self.publisher = Publisher(client_id, environment, account)
        self._identity = account.identity
        self._trouble = trouble
        self._failed: set[str] = set()
        self._selections = Selections()
        self._environment = environment
        self._uploads: dict[str, SimulatedUpload] = {}
        self._tombstones: OrderedDict[str, tuple[int, Outcome]] = OrderedDict()
        self._work: set[asyncio.Task[None]] = set()
        self._published_at: dict[str, float] = {}
        self._status_published = False

    # --- the connection ---

    def connected(self, connection: MqttConnection) -> None:
        """Subscribe, publish the presence, then the hello."""
        self.publisher.connection = connection
        topics = self._environment.topics
        wanted = (topics.command(self.publisher.client_id), topics.birth())
        filters = [TopicFilter(topic, retain_handling=_NOT_STORED) for topic in wanted]
        keys = [] if self._identity is None else [TopicFilter(topics.keys())]
        connection.subscribe(filters + keys)
        self.publisher.online()
        self._hello()
        self._repeat(0.0)

    def enroll(self, account: Account) -> None:
        """Take a bundle, as an agent does that is started again with one: its next connection is signed."""
        self._identity = account.identity
        self.publisher.enroll(account)
        if self.publisher.connection is not None:
            self.publisher.connection.abort("the device is started again")

    def heartbeat(self) -> None:
        """Publish the presence, and repeat the responses that no command has answered."""
        if self.publisher.connection is not None:
            self.publisher.online()
            self._repeat(REPEAT_AFTER)

    def leave(self) -> None:
        """Publish that it is offline, and disconnect."""
        for task in self._work:
            task.cancel()
        self.publisher.go_offline()

    def publish_status(self) -> None:
        """Publish a Status while uploads last longer than the second between two of these calls."""
        busy = [upload.progress() for upload in self._uploads.values() if upload.ended is None]
        if not busy and not self._status_published:
            return
        self._status_published = bool(busy)
        status = "uploading" if busy else "idle"
        shown = Status(status, self.publisher.client_id, self.publisher.epoch, busy[0] if busy else None, tuple(busy))
        self.publisher.publish(Channel.STATUS, encode(shown), qos=0)

    @property
    def busy(self) -> bool:
        """Whether it has uploads under way, or still has to publish that it is idle."""
        return self._status_published or any(upload.ended is None for upload in self._uploads.values())

    # --- commands ---

    def received(self, message: Publish) -> None:
        """Handle a message; an invalid one is counted and changes nothing."""
        topics, identity = self._environment.topics, self._identity
        if identity is not None and message.topic == topics.keys():
            identity.take_keys(message)
            return
        birth = message.topic == topics.birth()
        kind = SignedKind.BIRTH if birth else SignedKind.COMMAND
        roles = tuple(KeyRole) if identity is None else identity.roles(kind, message)
        if not roles:
            return
        if birth:
            asyncio.get_running_loop().call_later(random.uniform(0.0, HELLO_JITTER), self._hello)  # noqa: S311
            return
        self._environment.counters.commands += 1
        try:
            command = decode_command(message.payload)
        except BadCommand as bad:
            failed = Response(
                bad.message_id, bad.action, ERRORS[ErrorCode(bad.code)].travels_as, UploadReport(), error=bad.code
            )
            self.publisher.respond(msgspec.structs.replace(failed, message=str(bad)))
        except SchemaError as error:
            self._count(f"bad message: {error}")
        else:
            if identity is None or (identity.obeys(command, roles) and self._is_current(command, identity)):
                self._execute(command, command.payload)

    def _is_current(self, command: Command, identity: SimulatedIdentity) -> bool:
        """Whether the command is for this connection; else its sender must sign it for this one."""
        if command.session == identity.session:
            return True
        code = ErrorCode.STALE_EPOCH
        text = "the command names another connection of this device"
        failed = Response(command.message_id, command.action, ERRORS[code].travels_as, UploadReport(), error=code)
        self.publisher.respond(msgspec.structs.replace(failed, message=text))
        return False

    def _execute(self, command: Command, payload: CommandPayload) -> None:
        match payload:
            case DownloadFile():
                self._download(command, payload)
            case GrantParts():
                self._grant(command, payload)
            case CancelUpload():
                self._cancel(command, payload)
            case CloseUpload():
                self._close(payload)
            case ListFiles():
                self._answer(
                    command, FileList(tuple(one.entry for one in self._environment.files.values())[:MAX_FILES])
                )
            case SelectFiles():
                files = (one.entry for one in self._environment.files.values())
                now = self._environment.wall()
                self._answer(command, self._selections.answer(command.message_id, payload, files, now))
            case HealthCheck():
                self._answer(command, Health(VERSION, len(self._uploads)))

    def _download(self, command: Command, download: DownloadFile) -> None:
        upload_id = download.about or command.message_id
        known = self._uploads.get(upload_id)
        if upload_id in self._tombstones:
            self._respond_from_tombstone(command, upload_id)
        elif known is not None and known.attempt > download.about_attempt:
            self._count(OLDER)
        elif known is None or known.attempt < download.about_attempt:
            self._begin(command, download)
        elif known.ended is ResponseStatus.ERROR and download.acknowledges >= known.sequence:
            known.acknowledge(download.acknowledges)
            known.ended = None
            self._respond(known, known.request_parts())
        else:
            known.acknowledge(download.acknowledges)
            self._respond_again(known)

    def _begin(self, command: Command, download: DownloadFile) -> None:
        default = self._environment.default_file
        file = self._environment.files.get(download.file_path) if download.file_path else default
        try:
            upload = SimulatedUpload.begin(command, download, file or default)
        except SchemaError as error:
            self._refuse(command, download, ErrorCode.BAD_REQUEST, str(error))
            return
        self._uploads[upload.upload_id] = upload
        config = download.upload_config
        if file is None:
            self._respond(upload, upload.fail(ErrorCode.FILE_NOT_FOUND, str(download.file_path)))
        elif self._fails(file.path):
            self._respond(upload, upload.fail(ErrorCode.SOURCE_UNREADABLE, "this device is to fail"))
        elif config is not None and config.presigned_urls:
            self._send_parts(upload, GrantParts(presigned_urls=config.presigned_urls))
        else:
            self._respond(upload, upload.request_parts())

    def _fails(self, path: str) -> bool:
        fails = self._trouble is Trouble.ALWAYS or (self._trouble is Trouble.ONCE and path not in self._failed)
        self._failed.add(path)
        return fails

    def _grant(self, command: Command, grant: GrantParts) -> None:
        upload = self._uploads.get(grant.about or "")
        if upload is None or upload.attempt < grant.about_attempt:
            if grant.about in self._tombstones:
                self._respond_from_tombstone(command, grant.about or "")
            else:
                self._refuse(command, grant, ErrorCode.UPLOAD_GONE, "this device does not know this attempt")
        elif upload.attempt > grant.about_attempt:
            self._count(OLDER)
        elif upload.over():
            # The owner requests what was reported: the response was lost, for example with an owner that was killed.
            upload.acknowledge(grant.acknowledges)
            self._respond_again(upload)
        else:
            self._take(upload, grant)

    def _take(self, upload: SimulatedUpload, grant: GrantParts) -> None:
        upload.acknowledge(grant.acknowledges)
        upload.grants += 1
        upload.held = grant.wait is not None
        if grant.wait is None:
            self._send_parts(upload, grant)
        else:
            upload.answered()
            loop = asyncio.get_running_loop()
            loop.call_later(grant.wait.for_seconds, self._ask_again, upload, upload.grants)

    def _cancel(self, command: Command, cancel: CancelUpload) -> None:
        upload_id = cancel.about or ""
        upload = self._uploads.get(upload_id)
        if upload is not None:
            if not upload.over():
                upload.cancel()
            self._respond_again(upload)
        elif upload_id in self._tombstones:
            self._respond_from_tombstone(command, upload_id)
        else:
            report = UploadReport(upload_id=upload_id, attempt=cancel.about_attempt)
            self.publisher.respond(Response(command.message_id, Action.DOWNLOAD_FILE, ResponseStatus.CANCELLED, report))

    def _close(self, close: CloseUpload) -> None:
        upload_id, outcome = close.about or "", Outcome.read(close.outcome)
        known = self._uploads.get(upload_id)
        if known is not None and known.attempt > close.about_attempt:
            self._count(OLDER)
            return
        if known is None and upload_id in self._tombstones:
            # How the upload ended is known; an owner that has forgotten it closes it as `unknown`.
            return
        if known is not None:
            del self._uploads[upload_id]
            self._environment.counters.end(outcome)
        self._published_at.pop(upload_id, None)
        self._tombstones[upload_id] = (close.about_attempt, outcome)
        while len(self._tombstones) > _TOMBSTONES:
            self._tombstones.popitem(last=False)

    def _refuse(self, command: Command, payload: DownloadFile | GrantParts, code: ErrorCode, text: str) -> None:
        """Answer a command for which no upload begins or continues."""
        upload_id = payload.about or (command.message_id if isinstance(payload, DownloadFile) else None)
        report = UploadReport(upload_id=upload_id, attempt=payload.about_attempt)
        response = Response(command.message_id, Action.DOWNLOAD_FILE, ERRORS[code].travels_as, report, error=code)
        self.publisher.respond(msgspec.structs.replace(response, message=text))

    def _respond_from_tombstone(self, command: Command, upload_id: str) -> None:
        attempt, outcome = self._tombstones[upload_id]
        report = UploadReport(upload_id=upload_id, attempt=attempt)
        status = _STATUSES.get(outcome, ResponseStatus.ERROR)
        code = ErrorCode.UPLOAD_GONE if status is ResponseStatus.ERROR else None
        self.publisher.respond(Response(command.message_id, Action.DOWNLOAD_FILE, status, report, error=code))

    def _ask_again(self, upload: SimulatedUpload, grants: int) -> None:
        """A wait has ended: request the parts again, unless a later grant came."""
        if upload.grants == grants and self._has(upload) and not upload.over():
            upload.held = False
            self._respond(upload, upload.request_parts())

    # --- parts ---

    def _send_parts(self, upload: SimulatedUpload, grant: GrantParts) -> None:
        urls = upload.grant(grant)
        if not urls and not upload.waiting and (response := upload.next_response()):
            self._respond(upload, response)
        expires_at = math.inf if grant.lifetime is None else self._now() + grant.lifetime
        for url in urls:
            task = asyncio.create_task(self._send_part(upload, url, expires_at))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def _send_part(self, upload: SimulatedUpload, url: PresignedPart, expires_at: float) -> None:
        response = await send_part(self._environment, upload, url, expires_at)
        if response is not None and self._has(upload):
            self._respond(upload, response)

    def _has(self, upload: SimulatedUpload) -> bool:
        """Whether it is still this device's: it was not closed, and no newer attempt has its place."""
        return self._uploads.get(upload.upload_id) is upload

    # --- responses ---

    def _hello(self) -> None:
        if self.publisher.connection is None:
            return
        hello = Hello(self.publisher.install_id, tuple(upload.active() for upload in self._uploads.values()))
        self.publisher.respond(Response(secrets.token_hex(8), Action.HELLO, ResponseStatus.SUCCESS, hello))

    def _repeat(self, older_than: float) -> None:
        """Publish again each response that is older than that (seconds) and that no command has answered."""
        now = self._now()
        for upload in list(self._uploads.values()):
            if upload.latest is not None and now - self._published_at.get(upload.upload_id, 0.0) >= older_than:
                self._respond(upload, upload.latest)

    def _respond_again(self, upload: SimulatedUpload) -> None:
        """Publish the latest response again, answered or not: the owner may have forgotten it."""
        if upload.newest is not None:
            self._respond(upload, upload.newest)

    def _respond(self, upload: SimulatedUpload, response: Response) -> None:
        self._published_at[upload.upload_id] = self._now()
        self.publisher.respond(response)

    def _answer(self, command: Command, payload: ResponsePayload) -> None:
        self.publisher.respond(Response(command.message_id, command.action, ResponseStatus.SUCCESS, payload))

    def _count(self, error: str) -> None:
        self._environment.counters.errors[error] += 1

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


_TRIES: Final = 4
_REFUSED_TRIES: Final = 3
_PAUSE: Final = 1.0
_MAY_HAVE_WON: Final = 412
_REFUSALS: Final = {403: ErrorCode.STORAGE_REFUSED, 404: ErrorCode.UPLOAD_GONE}


async def send_part(
    environment: Environment, upload: SimulatedUpload, granted: PresignedPart, expires_at: float
) -> Response | None:
    """Send it; returns the response to publish, if any. `expires_at`: when the URL expires, by the loop's clock."""
    body = upload.file.body(upload.plan.part(granted.part_number))
    failure = (ErrorCode.INTERNAL, "")
    for tries in range(1, _TRIES + 1):
        if upload.over():
            return None
        try:
            answer = await environment.http.send("PUT", granted.url, _headers(granted), body)
        except RequestFailed as error:
            failure = (ErrorCode.STORAGE_UNAVAILABLE, str(error))
        else:
            etag = answer.headers.get("etag") if answer.success else None
            if etag or answer.status == _MAY_HAVE_WON:
                environment.counters.puts += 1
                environment.counters.bytes_sent += len(body)
                return None if upload.over() else upload.stored(granted.part_number, etag or "")
            if asyncio.get_running_loop().time() > expires_at:
                return upload.expired(granted.part_number)
            failure = _failure_of(answer)
        environment.counters.errors[f"PUT: {failure[1]}"] += 1
        if tries == (_REFUSED_TRIES if failure[0] in _REFUSALS.values() else _TRIES):
            break
        await asyncio.sleep(_PAUSE * 2**tries * random.random())  # noqa: S311 - spreads load, hides nothing
    return None if upload.over() else upload.fail(*failure)


def _headers(granted: PresignedPart) -> dict[str, str]:
    return {**granted.headers, "Content-Type": "application/octet-stream"}


def _failure_of(answer: HttpAnswer) -> tuple[ErrorCode, str]:
    """The error code and text of a refused PUT (protocol.md section 4)."""
    code = _REFUSALS.get(answer.status, ErrorCode.STORAGE_UNAVAILABLE)
    return code, f"{answer.status} {answer.code}"
