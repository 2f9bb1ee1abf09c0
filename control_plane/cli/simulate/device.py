"""One simulated device: its hello, its uploads, and how it obeys commands.

Rule: every command gets the answer that protocol.md gives it. What goes wrong is said to the owner and counted.
"""

import asyncio
import math
import random
import secrets
from collections import OrderedDict
from typing import Final

import msgspec

from control_plane.cli.simulate.ground import Ground
from control_plane.cli.simulate.packets import Filter, Publish
from control_plane.cli.simulate.sender import send_part
from control_plane.cli.simulate.upload import SimulatedUpload
from control_plane.cli.simulate.voice import VERSION, Voice
from control_plane.cli.simulate.wire import Wire
from schemas.codec import decode_command, encode
from schemas.errors import BadCommand, SchemaError
from schemas.messages import (
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
    Status,
    UploadReport,
)
from schemas.topics import Channel
from schemas.values import Action, ErrorCode, Outcome, PresignedPart, ResponseStatus

HELLO_JITTER: Final = 30.0
"""Seconds over which hellos are spread after the control plane's birth."""

REPEAT_AFTER: Final = 30.0
_TOMBSTONES: Final = 64
_STATUSES: Final = {
    Outcome.COMPLETED: ResponseStatus.SUCCESS,
    Outcome.CANCELLED: ResponseStatus.CANCELLED,
    Outcome.REJECTED: ResponseStatus.REJECTED,
}


class Device:
    """Knows its uploads, and speaks with its `voice`."""

    def __init__(self, client_id: str, ground: Ground) -> None:
        self.voice = Voice(client_id, ground)
        self._ground = ground
        self._uploads: dict[str, SimulatedUpload] = {}
        self._over: OrderedDict[str, tuple[int, Outcome]] = OrderedDict()
        self._work: set[asyncio.Task[None]] = set()
        self._said_at: dict[str, float] = {}
        self._status_told = False

    # --- the connection ---

    def connected(self, wire: Wire) -> None:
        """Subscribe, then be online, then say hello."""
        self.voice.wire = wire
        topics = self._ground.topics
        wire.subscribe([Filter(topics.command(self.voice.client_id)), Filter(topics.birth())])
        self.voice.online()
        self._hello()
        self._repeat(0.0)

    def beat(self) -> None:
        """Say that we are still here, and say again what nobody answered."""
        if self.voice.wire is not None:
            self.voice.online()
            self._repeat(REPEAT_AFTER)

    def leave(self) -> None:
        """Say goodbye and hang up."""
        for task in self._work:
            task.cancel()
        self.voice.farewell()

    def tell_status(self) -> None:
        """A Status, while uploads last longer than the second between two of these calls."""
        busy = [upload.progress() for upload in self._uploads.values() if upload.ended is None]
        if not busy and not self._status_told:
            return
        self._status_told = bool(busy)
        status = "uploading" if busy else "idle"
        shown = Status(status, self.voice.client_id, self.voice.epoch, busy[0] if busy else None, tuple(busy))
        self.voice.publish(Channel.STATUS, encode(shown), qos=0)

    @property
    def busy(self) -> bool:
        """Whether it has uploads under way, or a Status to take back."""
        return self._status_told or any(upload.ended is None for upload in self._uploads.values())

    # --- commands ---

    def heard(self, message: Publish) -> None:
        """Take a message; whatever it is, a device goes on."""
        if message.topic == self._ground.topics.birth():
            asyncio.get_running_loop().call_later(random.uniform(0.0, HELLO_JITTER), self._hello)  # noqa: S311
            return
        self._ground.tally.commands += 1
        try:
            command = decode_command(message.payload)
            self._obey(command, command.payload)
        except BadCommand as bad:
            failed = Response(bad.message_id, bad.action, ResponseStatus.ERROR, UploadReport(), error=bad.code)
            self.voice.respond(msgspec.structs.replace(failed, message=str(bad)))
        except SchemaError as error:
            self._count(f"bad message: {error}")

    def _obey(self, command: Command, payload: CommandPayload) -> None:
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
                self._answer(command, FileList((self._ground.file.entry,)))
            case HealthCheck():
                self._answer(command, Health(VERSION, len(self._uploads)))

    def _download(self, command: Command, wish: DownloadFile) -> None:
        upload_id = wish.about or command.message_id
        known = self._uploads.get(upload_id)
        if upload_id in self._over:
            self._answer_for_the_dead(command, upload_id)
        elif known is not None and known.attempt > wish.about_attempt:
            self._count("a command of an older attempt")
        elif known is not None and known.attempt == wish.about_attempt and known.latest is not None:
            known.acknowledge(wish.acknowledges)
            if known.ended is ResponseStatus.ERROR and wish.acknowledges >= known.sequence:
                known.ended = None
                self._say(known, known.ask())
            else:
                self._say(known, known.latest)
        elif known is None or known.attempt < wish.about_attempt:
            self._begin(command, wish)

    def _begin(self, command: Command, wish: DownloadFile) -> None:
        upload = SimulatedUpload.begin(command, wish, self._ground.file)
        self._uploads[upload.upload_id] = upload
        config = wish.upload_config
        if config is not None and config.presigned_urls:
            self._send_parts(upload, GrantParts(presigned_urls=config.presigned_urls))
        else:
            self._say(upload, upload.ask())

    def _grant(self, command: Command, grant: GrantParts) -> None:
        upload = self._uploads.get(grant.about or "")
        if upload is None and grant.about in self._over:
            self._answer_for_the_dead(command, grant.about or "")
        elif upload is None:
            gone = UploadReport(upload_id=grant.about, attempt=grant.about_attempt)
            response = Response(command.message_id, Action.DOWNLOAD_FILE, ResponseStatus.ERROR, gone)
            self.voice.respond(msgspec.structs.replace(response, error=ErrorCode.UPLOAD_GONE))
        elif upload.attempt == grant.about_attempt and upload.ended is None:
            upload.acknowledge(grant.acknowledges)
            self._send_parts(upload, grant)

    def _cancel(self, command: Command, cancel: CancelUpload) -> None:
        upload_id = cancel.about or ""
        upload = self._uploads.get(upload_id)
        if upload is not None:
            self._say(upload, upload.latest if upload.ended and upload.latest else upload.cancel())
        elif upload_id in self._over:
            self._answer_for_the_dead(command, upload_id)
        else:
            report = UploadReport(upload_id=upload_id, attempt=cancel.about_attempt)
            self.voice.respond(Response(command.message_id, Action.DOWNLOAD_FILE, ResponseStatus.CANCELLED, report))

    def _close(self, close: CloseUpload) -> None:
        upload_id, outcome = close.about or "", Outcome.read(close.outcome)
        self._said_at.pop(upload_id, None)
        if self._uploads.pop(upload_id, None) is not None:
            self._ground.tally.end(outcome)
        self._over[upload_id] = (close.about_attempt, outcome)
        while len(self._over) > _TOMBSTONES:
            self._over.popitem(last=False)

    def _answer_for_the_dead(self, command: Command, upload_id: str) -> None:
        attempt, outcome = self._over[upload_id]
        report = UploadReport(upload_id=upload_id, attempt=attempt)
        status = _STATUSES.get(outcome, ResponseStatus.ERROR)
        code = ErrorCode.UPLOAD_GONE if status is ResponseStatus.ERROR else None
        self.voice.respond(Response(command.message_id, Action.DOWNLOAD_FILE, status, report, error=code))

    # --- parts ---

    def _send_parts(self, upload: SimulatedUpload, grant: GrantParts) -> None:
        urls = upload.grant(grant)
        if not urls and not upload.waiting and (word := upload.next_word()):
            self._say(upload, word)
        good_until = math.inf if grant.lifetime is None else self._now() + grant.lifetime
        for url in urls:
            task = asyncio.create_task(self._send_part(upload, url, good_until))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def _send_part(self, upload: SimulatedUpload, url: PresignedPart, good_until: float) -> None:
        word = await send_part(self._ground, upload, url, good_until)
        if word is not None:
            self._say(upload, word)

    # --- words ---

    def _hello(self) -> None:
        if self.voice.wire is None:
            return
        hello = Hello(self.voice.install_id, tuple(upload.active() for upload in self._uploads.values()))
        self.voice.respond(Response(secrets.token_hex(8), Action.HELLO, ResponseStatus.SUCCESS, hello))

    def _repeat(self, older_than: float) -> None:
        """Say again what nobody has answered."""
        now = self._now()
        for upload in list(self._uploads.values()):
            if upload.latest is not None and now - self._said_at.get(upload.upload_id, 0.0) >= older_than:
                self._say(upload, upload.latest)

    def _say(self, upload: SimulatedUpload, response: Response) -> None:
        self._said_at[upload.upload_id] = self._now()
        self.voice.respond(response)

    def _answer(self, command: Command, payload: ResponsePayload) -> None:
        self.voice.respond(Response(command.message_id, command.action, ResponseStatus.SUCCESS, payload))

    def _count(self, error: str) -> None:
        self._ground.tally.errors[error] += 1

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
