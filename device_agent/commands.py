"""Verifies commands, decodes them and carries them out: begin, grant, cancel or close an upload, or start a query.

Rule: used by the agent's loop only. A command about a known upload becomes an event of that upload; one about an
unknown upload is answered outside the count of sequences. A command that cannot be carried out is answered, or counted
and logged; it never raises.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, assert_never

import msgspec

from device_agent.errors import PutFailed, PutFailure
from device_agent.logs import RateLimitedLog
from device_agent.queries.answers import HealthQuery, Query, failed_query
from device_agent.sealing.seal import draw_seal, seal_refusal
from device_agent.state.installation import Installation
from device_agent.state.journal import Journal
from device_agent.transfer.events import CancelRequested, CloseReceived, Granted, GrantRefused, Repeated
from device_agent.transfer.records import Order
from device_agent.transfer.responses import outcome_response
from device_agent.trust.verdict import Known, Unverified, Verdict, upload_named
from device_agent.uploads import Run, Uploads
from schemas.codec import decode_command
from schemas.errors import BadCommand, SchemaError
from schemas.messages import (
    CHUNK_SIZE,
    CancelUpload,
    CloseUpload,
    Command,
    DownloadFile,
    GrantParts,
    HealthCheck,
    ListFiles,
    Nothing,
    Response,
    SelectFiles,
    UploadConfig,
    UploadReport,
)
from schemas.signing.canonical import Signature
from schemas.topics import Channel
from schemas.values import ERRORS, Action, DigestName, ErrorCode, PresignedPart, ResponseStatus

if TYPE_CHECKING:
    from device_agent.trust.roles import SignedBy
    from device_agent.trust.signing import DeviceSigning

log = logging.getLogger(__name__)

ANSWER_EVERY: Final = 1.0
"""Seconds between two answers to what a broker may repeat at will: commands of an old session, and queries again."""

_ABOUT_DEVICE: Final = (ListFiles, SelectFiles, HealthCheck)
_REFUSALS: Final = {
    PutFailure.HOST_NOT_ALLOWED: ErrorCode.HOST_NOT_ALLOWED,
    PutFailure.BAD_HEADER: ErrorCode.BAD_REQUEST,
}


class Commands:
    """Carries out commands; `publish` takes a response, `run_query` a query about the device, False when it is full.

    `run_query` also takes what stands for the paths of who asks (`SignedBy.scope`), empty for every path.
    `patterns_of` are the patterns of a file type.
    `after_refusal` is why the `after` of a command is refused, `after_acknowledged` takes a close of a closed upload.
    With `signing` only signed commands are obeyed; with `needs_operator` new uploads only for a person's key.
    """

    def __init__(  # noqa: PLR0913 (one keyword for each collaborator)
        self,
        uploads: Uploads,
        journal: Journal,
        *,
        installation: Installation,
        default_file: str | None,
        check_url: Callable[[PresignedPart], object],
        disk_failure: Callable[[], str | None],
        publish: Callable[[Response], None],
        run_query: Callable[[Command, Query, str], bool],
        patterns_of: Callable[[str], tuple[str, ...]],
        after_refusal: Callable[[DownloadFile, str], str | None],
        after_acknowledged: Callable[[str, CloseUpload], None],
        signing: "DeviceSigning | None" = None,
        needs_operator: bool = False,
    ) -> None:
        self._uploads = uploads
        self._log_limited = RateLimitedLog(uploads.counters)
        self._journal = journal
        self._installation = installation
        self._default_file = default_file
        self._check_url = check_url
        self._publish = publish
        self._run_query = run_query
        self._patterns_of = patterns_of
        self._after_refusal = after_refusal
        self._acknowledged = after_acknowledged
        self._disk_failure = disk_failure
        self._signing = signing
        self._needs_operator = needs_operator
        self._traceparent: str | None = None
        self._by: SignedBy | None = None
        """Who signed the command at hand; None on an unsigned device."""
        self._answer_at = 0.0

    def receive(
        self, data: bytes, now: float, traceparent: str | None = None, signature: Signature | None = None
    ) -> None:
        """Carry out one message, which belongs to the trace `traceparent`."""
        self._traceparent, self._by, verdict = traceparent, None, Verdict.OBEY
        try:
            if self._signing is not None:
                self._by = self._signing.signed_by(Channel.COMMAND, data, signature)
            command = decode_command(data)
            if self._signing is not None and self._by is not None:
                verdict = self._signing.judge(command, self._by, self._known(command))
        except Unverified as unverified:
            self._count_unverified(unverified, now)
            return
        except BadCommand as bad:
            self._log_limited.warn("bad_commands", bad, now)
            if self._by is None or self._may_answer(now):
                self._answer_bad(bad, data)
            return
        except SchemaError as unreadable:
            self._log_limited.warn("unreadable_messages", unreadable, now)
            return
        match verdict:
            case Verdict.OBEY if command.install_id not in {None, self._installation.install_id}:
                self._refuse(command, ErrorCode.STALE_EPOCH, "the command is for another installation")
            case Verdict.OBEY:
                self._dispatch(command, now)
            case Verdict.REPEAT:
                self._uploads.counters["repeated_commands"] += 1
                self._repeat(command, now)
            case Verdict.STALE:
                self._uploads.counters["stale_commands"] += 1
                if self._may_answer(now):
                    text = "the command is for another session of this agent: sign it again for the present one"
                    self._refuse(command, ErrorCode.STALE_EPOCH, text)

    def verifies_birth(self, data: bytes, signature: Signature | None, now: float) -> bool:
        """Whether a birth may have an effect: on a signed device, one that a trusted key has signed."""
        try:
            if self._signing is not None:
                self._signing.signed_by(Channel.BIRTH, data, signature)
        except Unverified as unverified:
            self._count_unverified(unverified, now)
            return False
        return True

    def read_keys(self, data: bytes, now: float) -> None:
        """Take the published roots and list of keys, if they are newer and signed as they have to be."""
        if self._signing is None:
            return
        try:
            changed = self._signing.read_keys(data)
        except SchemaError as refused:
            self._count_unverified(refused, now)
            return
        if changed:
            log.info("the list of keys %d is obeyed", self._signing.keys_version)
        if self._signing.trust_file.unsaved:
            log.warning("the list of keys %d cannot be kept, and is obeyed all the same", self._signing.keys_version)

    def _count_unverified(self, error: SchemaError, now: float) -> None:
        """Count a message that is not signed by a trusted key, or not by one that may; it has no other effect."""
        if self._signing is not None:
            self._signing.unverified += 1
        self._log_limited.warn("unverified_messages", error, now)

    def drop_retained(self, now: float) -> None:
        """Drop a command that the broker had stored: it may be of any age, and would be obeyed at each connect."""
        text = "a retained command is not carried out: publish it again without the retain flag"
        self._log_limited.warn("retained_commands", SchemaError(text), now)

    def _dispatch(self, command: Command, now: float) -> None:
        payload = command.payload
        match payload:
            case DownloadFile():
                self._download(command, payload, now)
            case GrantParts():
                self._grant(command, payload, now)
            case CancelUpload():
                self._cancel(command, payload, now)
            case CloseUpload():
                self._close(payload, now)
            case ListFiles() | SelectFiles():
                self._query(command, payload)
            case HealthCheck():
                self._query(command, HealthQuery(dict(self._uploads.counters)))
            case _:
                assert_never(payload)

    def _known(self, command: Command) -> Known:
        """What this device has of the upload that a command is about."""
        payload = command.payload
        upload_id = upload_named(payload, command.message_id)
        path = (payload.file_path or self._default_file) if isinstance(payload, DownloadFile) else None
        if isinstance(payload, SelectFiles) and payload.type is not None:
            return Known(patterns=self._patterns_of(payload.type))
        if upload_id is None:
            return Known(path=path)
        run, tombstone = self._uploads.get(upload_id), self._journal.memory.tombstones.get(upload_id)
        return Known(
            order=None if run is None else run.transfer.order,
            after=None if tombstone is None else tombstone.after or tombstone.receipt,
            closed=tombstone is not None,
            path=path,
        )

    def _may_answer(self, now: float) -> bool:
        """Whether one more answer may be published to what a broker may repeat at will."""
        if now < self._answer_at:
            return False
        self._answer_at = now + ANSWER_EVERY
        return True

    def _repeat(self, command: Command, now: float) -> None:
        """Answer a command that was received before from the state, which stays as it is."""
        payload = command.payload
        if isinstance(payload, _ABOUT_DEVICE):
            if self._may_answer(now):
                self._dispatch(command, now)
            return
        upload_id = upload_named(payload, command.message_id)
        run = self._uploads.get(upload_id or "")
        if run is not None:
            self._uploads.answer(run)
        elif upload_id is not None and not isinstance(payload, CloseUpload):
            self._answered_by_tombstone(command, upload_id, payload.about_attempt)

    def _query(self, command: Command, query: Query) -> None:
        if not self._run_query(command, query, "" if self._by is None else self._by.scope):
            self._refuse(command, ErrorCode.BUSY, "too many queries wait for an answer")

    def _download(self, command: Command, payload: DownloadFile, now: float) -> None:
        upload_id, attempt = payload.about or command.message_id, payload.about_attempt
        run = self._uploads.get(upload_id)
        if run is not None and attempt < run.transfer.order.attempt:
            self._uploads.counters["older_attempts"] += 1
        elif run is not None and attempt == run.transfer.order.attempt:
            if self._by is None or self._by.owns(run.transfer.order):
                self._uploads.handle(run, Repeated(now=now, acknowledges=payload.acknowledges))
            else:
                # Who may begin an upload may not acknowledge what its owner has not stored.
                self._uploads.answer(run)
        elif run is not None or not self._answered_by_tombstone(command, upload_id, attempt):
            self._begin(command, payload, now)

    def _begin(self, command: Command, payload: DownloadFile, now: float) -> None:
        path = payload.file_path or self._default_file
        if self._needs_operator and not (self._by is not None and self._by.is_operator):
            self._refuse(command, ErrorCode.BAD_SIGNATURE, _needs_operator(attempt=payload.about_attempt))
        elif path is None:
            self._refuse(command, ErrorCode.BAD_REQUEST, "no file_path was given, and this agent has no FILE_PATH")
        elif failure := self._disk_failure():
            self._refuse(command, ErrorCode.NO_SPACE, failure)
        elif (refusal := self._after_refusal(payload, path)) is not None:
            self._refuse(command, ErrorCode.AFTER_NOT_ALLOWED, refusal)
        elif (refusal := seal_refusal(payload)) is not None:
            self._refuse(command, ErrorCode.UNSUPPORTED, refusal)
        elif self._uploads.full:
            self._refuse(command, ErrorCode.BUSY, "the agent has as many uploads as it takes")
        else:
            config = payload.upload_config or UploadConfig()
            urls = config.presigned_urls or ()
            try:
                order = _order(command, payload, path, self._traceparent, self._by)
            except SchemaError as refused_key:
                self._refuse(command, ErrorCode.UNSUPPORTED, f"encrypt_to: {refused_key}")
                return
            acknowledges, lifetime = payload.acknowledges, config.expires_in
            run = self._uploads.begin(order, acknowledges=acknowledges, urls=urls, lifetime=lifetime, now=now)
            if refused := self._refusal(urls, now):
                self._uploads.handle(run, refused)

    def _grant(self, command: Command, payload: GrantParts, now: float) -> None:
        upload_id, attempt = payload.about, payload.about_attempt
        run = self._uploads.get(upload_id or "")
        if upload_id is None:
            self._refuse(command, ErrorCode.BAD_REQUEST, "grant_parts names no upload_id")
        elif run is None or attempt > run.transfer.order.attempt:
            if not self._answered_by_tombstone(command, upload_id, attempt):
                self._refuse(command, ErrorCode.UPLOAD_GONE, "the agent does not know this attempt")
        elif attempt < run.transfer.order.attempt:
            self._uploads.counters["older_attempts"] += 1
        else:
            run.traceparent = self._traceparent or run.traceparent
            self._uploads.handle(run, self._refusal(payload.urls, now) or _granted(payload, now))

    def _cancel(self, command: Command, payload: CancelUpload, now: float) -> None:
        upload_id = payload.about
        run = self._uploads.get(upload_id or "")
        if upload_id is None:
            self._refuse(command, ErrorCode.BAD_REQUEST, "cancel_upload names no upload_id")
        elif run is not None:
            self._uploads.handle(run, CancelRequested(now=now))
        elif not self._answered_by_tombstone(command, upload_id, payload.about_attempt):
            report = UploadReport(upload_id=upload_id, attempt=payload.about_attempt)
            self._publish(Response(command.message_id, Action.DOWNLOAD_FILE, ResponseStatus.CANCELLED, report))

    def _close(self, payload: CloseUpload, now: float) -> None:
        upload_id = payload.about
        run = self._uploads.get(upload_id or "")
        if run is None:
            if upload_id is not None and upload_id not in self._journal.memory.tombstones:
                # Of an unknown upload its owner is not known: only the control plane's key keeps others from it.
                if self._by is None or not self._by.is_operator:
                    self._uploads.write_tombstone(upload_id, payload.outcome)
            elif upload_id is not None:
                self._acknowledged(upload_id, payload)
        elif payload.about_attempt < run.transfer.order.attempt:
            self._uploads.counters["older_attempts"] += 1
        else:
            attempt = payload.about_attempt
            receipt = payload.receipt if self._signing is not None else None
            close = CloseReceived(
                now=now, outcome=payload.outcome, attempt=attempt, proof=payload.proof, receipt=receipt
            )
            self._uploads.handle(run, close)

    def _answered_by_tombstone(self, command: Command, upload_id: str, attempt: int) -> bool:
        tombstone = self._journal.memory.tombstones.get(upload_id)
        if tombstone is not None:
            self._publish(outcome_response(command.message_id, upload_id, attempt, tombstone.outcome))
        return tombstone is not None

    def _refusal(self, urls: tuple[PresignedPart, ...], now: float) -> GrantRefused | None:
        for url in urls:
            try:
                self._check_url(url)
            except PutFailed as refused:
                code = _REFUSALS.get(refused.kind, ErrorCode.BAD_REQUEST)
                return GrantRefused(now=now, code=code, text=refused.text)
        return None

    def refuse_unsaved(self, run: Run) -> None:
        """Answer the command of an upload that the journal could not take: it never began."""
        order, failure = run.transfer.order, self._disk_failure() or ""
        self._publish(_error(order.message_id, ErrorCode.NO_SPACE, failure, order.upload_id, order.attempt))

    def _refuse(self, command: Command, code: ErrorCode, text: str) -> None:
        payload = command.payload
        if isinstance(payload, _ABOUT_DEVICE):
            self._publish(failed_query(command, code, text))
            return
        about = payload.about or (command.message_id if isinstance(payload, DownloadFile) else None)
        self._publish(_error(command.message_id, code, text, about, payload.about_attempt))

    def _answer_bad(self, bad: BadCommand, data: bytes) -> None:
        upload_id, attempt = _upload_named(data)
        response = _error(bad.message_id, ErrorCode(bad.code), str(bad), upload_id, attempt)
        if upload_id is None:
            response = msgspec.structs.replace(response, action=bad.action, payload=Nothing())
        self._publish(response)


def _needs_operator(*, attempt: int) -> str:
    if attempt > 1:
        # Another content, or another day: it is not what the operator signed for.
        return (
            f"attempt {attempt} needs a new command with an operator's signature (commands_need in the device's policy)"
        )
    return "this device takes new uploads only from an operator's key (commands_need in its policy)"


def _order(command: Command, payload: DownloadFile, path: str, traceparent: str | None, by: "SignedBy | None") -> Order:
    """What is begun, with a new key if it is to be sealed; `SchemaError` when one of the recipients is no key."""
    recipients = payload.options.encrypt_to
    config = payload.upload_config or UploadConfig()
    return Order(
        upload_id=payload.about or command.message_id,
        message_id=command.message_id,
        file_path=path,
        attempt=payload.about_attempt,
        owner=payload.owner,
        digest=config.digest or DigestName.MD5,
        chunk_size=config.chunk_size or CHUNK_SIZE,
        options=payload.options,
        metadata=payload.metadata,
        pregranted=payload.pregranted,
        traceparent=traceparent,
        after=payload.after,
        seal=draw_seal(recipients) if recipients else None,
        principal=None if by is None else by.entry.principal,
        command_sha256=None if by is None else by.digest.hex(),
    )


def _granted(payload: GrantParts, now: float) -> Granted:
    config = payload.upload_config or UploadConfig()
    return Granted(
        now=now,
        acknowledges=payload.acknowledges,
        completed=payload.completed_parts,
        parts=payload.urls,
        lifetime=payload.lifetime,
        chunk_size=config.chunk_size,
        wait=payload.wait,
        rate=payload.max_bytes_per_second,
    )


def _error(message_id: str, code: ErrorCode, text: str, upload_id: str | None, attempt: int) -> Response:
    """A failure without a sequence."""
    return Response(
        message_id=message_id,
        action=Action.DOWNLOAD_FILE,
        status=ERRORS[code].travels_as,
        payload=UploadReport(upload_id=upload_id, attempt=attempt),
        error=code,
        message=text,
    )


class _Names(msgspec.Struct):
    upload_id: Any = None
    attempt: Any = None
    upload_config: Any = None


class _Naming(msgspec.Struct):
    payload: _Names = msgspec.field(default_factory=_Names)


_naming: Final = msgspec.json.Decoder(_Naming)


def _upload_named(data: bytes) -> tuple[str | None, int]:
    """The upload and the attempt in a command that cannot be decoded; None and 1 where they cannot be read."""
    try:
        names = _naming.decode(data).payload
        inside = names.upload_config if isinstance(names.upload_config, dict) else {}
        given = {"upload_id": names.upload_id, "attempt": names.attempt, **inside}
        known = {name: given[name] for name in ("upload_id", "attempt") if given.get(name)}
        found = msgspec.convert(known, UploadConfig)
    except (ValueError, RecursionError):
        return None, 1
    return found.upload_id, found.attempt or 1
