"""The device's side of one upload: the responses to commands and to stored parts.

Rule: no IO. Every response raises `sequence`; etags are repeated until a command acknowledges them.
"""

from dataclasses import dataclass, field
from typing import Final

from control_plane.cli.simulate.file import SyntheticFile
from schemas.messages import (
    MAX_WANTED_PARTS,
    ActiveUpload,
    Command,
    CurrentUpload,
    DownloadFile,
    GrantParts,
    Response,
    UploadConfig,
    UploadReport,
)
from schemas.names import UNKNOWN_OWNER
from schemas.parts import MIB, PartPlan, from_ranges, plan_as_given, plan_parts
from schemas.values import (
    ERRORS,
    Action,
    DigestName,
    ErrorCode,
    PresignedPart,
    ResponseStatus,
    WantedPart,
)

WINDOW_BYTES: Final = 64 * MIB
WINDOW_PARTS: Final = MAX_WANTED_PARTS
_CHUNK_SIZE: Final = 5 * MIB


@dataclass(slots=True)
class SimulatedUpload:
    """One attempt at one upload. `newest` is the last response; `latest` is the same until a command answers it.

    `grants` counts grants; while `held`, the owner grants nothing, and no request is made.
    """

    upload_id: str
    attempt: int
    message_id: str
    owner: str | None
    download: DownloadFile
    file: SyntheticFile
    plan: PartPlan
    digest: DigestName
    sequence: int
    latest: Response | None = None
    newest: Response | None = None
    ended: ResponseStatus | None = None
    grants: int = 0
    held: bool = False
    waiting: set[int] = field(default_factory=set)
    _stored: set[int] = field(default_factory=set)
    _etags: dict[int, tuple[str, int]] = field(default_factory=dict)
    _granted: int = 0

    @classmethod
    def begin(cls, command: Command, download: DownloadFile, file: SyntheticFile) -> "SimulatedUpload":
        """The upload that a `download_file` starts; `SchemaError` for a chunk size that S3 does not allow."""
        config = download.upload_config or UploadConfig()
        chunk_size = config.chunk_size or _CHUNK_SIZE
        pre_granted = bool(config.presigned_urls)
        owner = config.owner or (None if pre_granted else "control-plane")
        return cls(
            upload_id=download.about or command.message_id,
            attempt=download.about_attempt,
            message_id=command.message_id,
            owner=owner or UNKNOWN_OWNER,
            download=download,
            file=file,
            plan=(plan_as_given if pre_granted else plan_parts)(file.size, chunk_size),
            digest=config.digest or DigestName.MD5,
            sequence=download.acknowledges,
        )

    @property
    def bytes_sent(self) -> int:
        """Bytes in the parts that are stored."""
        return self.plan.size_of(self._stored)

    def over(self) -> bool:
        """Whether its last response exists."""
        return self.ended is not None

    def request_parts(self) -> Response:
        """The offer, and each later request: the parts wanted next, with their digests."""
        wanted: list[WantedPart] = []
        size = 0
        for number in self.plan.numbers:
            if number in self._stored or number in self.waiting:
                continue
            part = self.plan.part(number)
            size += part.size
            if wanted and (size > WINDOW_BYTES or len(wanted) == WINDOW_PARTS):
                break
            wanted.append(WantedPart(number, part.size, self.file.digest(self.digest, part)))
        return self._respond(ResponseStatus.IN_PROGRESS, wanted=tuple(wanted))

    def acknowledge(self, sequence: int) -> None:
        """Drop the etags that the owner has committed."""
        self._etags = {number: one for number, one in self._etags.items() if one[1] == 0 or one[1] > sequence}

    def grant(self, grant: GrantParts) -> list[PresignedPart]:
        """Accept URLs; returns those to send, in order."""
        self._stored |= from_ranges(grant.completed_parts)
        known = self._stored | self.waiting
        numbers = self.plan.numbers
        new = [one for one in grant.urls if one.part_number in numbers and one.part_number not in known]
        self.waiting.update(one.part_number for one in new)
        self._granted = len(new)
        self.answered()
        return new

    def answered(self) -> None:
        """A command has answered the latest response: it is repeated only if the owner requests it again."""
        self.latest = None

    def stored(self, number: int, etag: str) -> Response | None:
        """A part is stored: returns the request for more parts or the success that follows, if any."""
        self.waiting.discard(number)
        self._stored.add(number)
        self._etags[number] = (etag, 0)
        return self.next_response()

    def expired(self, number: int) -> Response | None:
        """The URL of a part expired unused: returns the request for another, unless one is under way."""
        self.waiting.discard(number)
        return self.request_parts() if self.latest is None and self.ended is None else None

    def next_response(self) -> Response | None:
        """The response due after parts are stored or need not be sent: a request, the success, or None."""
        if len(self._stored) == self.plan.total:
            return self._respond(ResponseStatus.SUCCESS)
        rest = self.plan.total - len(self._stored) - len(self.waiting)
        if rest and self.latest is None and not self.held and len(self.waiting) <= self._granted // 2:
            return self.request_parts()
        return None

    def fail(self, code: ErrorCode, text: str) -> Response:
        """The response of an upload that failed."""
        return self._respond(ERRORS[code].travels_as, error=code, text=text)

    def cancel(self) -> Response:
        """The response of a cancelled upload."""
        return self._respond(ResponseStatus.CANCELLED)

    def active(self) -> ActiveUpload:
        """Its entry in a hello."""
        status = self.ended or ResponseStatus.IN_PROGRESS
        return ActiveUpload(self.upload_id, self.attempt, self.sequence, status, self.owner)

    def progress(self) -> CurrentUpload:
        """Its entry in a Status."""
        sent, size = self.bytes_sent, self.file.size
        share = 100.0 * sent / size if size else 100.0
        numbers = (len(self._stored), self.plan.total)
        return CurrentUpload(self.upload_id, self.attempt, self.file.path, share, sent, size, *numbers)

    def _respond(
        self,
        status: ResponseStatus,
        *,
        wanted: tuple[WantedPart, ...] = (),
        error: ErrorCode | None = None,
        text: str | None = None,
    ) -> Response:
        self.sequence += 1
        if status is not ResponseStatus.IN_PROGRESS:
            self.ended = status
        self._etags = {number: (etag, seq or self.sequence) for number, (etag, seq) in self._etags.items()}
        report = UploadReport(
            upload_id=self.upload_id,
            attempt=self.attempt,
            owner=self.owner,
            file_path=self.file.path,
            file_size=self.file.size,
            fingerprint=self.file.fingerprint,
            chunk_size=self.plan.part_size,
            digest=self.digest,
            options=self.download.options,
            metadata=self.download.metadata,
            etags={number: etag for number, (etag, _) in self._etags.items()},
            wanted_parts=wanted,
        )
        self.latest = self.newest = Response(
            message_id=self.message_id,
            action=Action.DOWNLOAD_FILE,
            status=status,
            payload=report,
            sequence=self.sequence,
            error=error,
            message=text,
        )
        return self.latest
