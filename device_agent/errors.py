"""What can go wrong on the device.

AgentError
├── SettingsError          a setting is wrong; the text is the one line to print before stopping
├── JournalError           progress cannot be made durable: answered `no_space`, tried again
├── FileRefused            the file cannot be opened, listed or read; `code` goes to the owner
├── HostNotAllowed         a URL leads to a host outside `UPLOAD_HOSTS`; nothing was sent
├── PutFailed              one PUT did not store its part; `kind` says what to do about it
└── IllegalTransition      our own bug: an upload was asked for what its state does not allow
"""

from enum import StrEnum

from schemas.values import ErrorCode


class PutFailure(StrEnum):
    """What the answer to a PUT means (protocol.md section 4)."""

    EXPIRED_OR_FORBIDDEN = "expired_or_forbidden"
    """403: past the URL's life ask for a new one, else a refusal to be counted."""
    GONE = "gone"
    """404 with S3's own code: the multipart upload, the object or the bucket is no more."""
    BAD_DIGEST = "bad_digest"
    """400 BadDigest: other bytes arrived than were digested."""
    TRY_AGAIN = "try_again"
    """Timeouts, resets, 429, 5xx, 2xx without an ETag, and whatever bears no S3 error: a portal, a proxy."""
    REFUSED = "refused"
    """Any other S3 error: the same request will not be taken."""
    STOPPED = "stopped"
    """We stopped it ourselves."""
    SOURCE_CHANGED = "source_changed"
    """The file is not what it was when the upload began."""
    SOURCE_UNREADABLE = "source_unreadable"
    """The device cannot read what the file holds."""
    HOST_NOT_ALLOWED = "host_not_allowed"
    """The URL's host is not in `UPLOAD_HOSTS`."""
    BAD_HEADER = "bad_header"
    """The grant asks for a header that the agent does not send."""


class AgentError(Exception):
    """Anything that the agent raises by intent."""


class SettingsError(AgentError):
    """A setting that the agent cannot run with; the text names it and says what is allowed."""


class JournalError(AgentError):
    """The state folder could not be read or written; what was written before is still there."""


class FileRefused(AgentError):
    """A file that will not be uploaded; `code` is the error code of the answer, the text its sentence."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class HostNotAllowed(AgentError):
    """A URL whose host is not in `UPLOAD_HOSTS`; the text names the host, never the URL."""


class PutFailed(AgentError):
    """A PUT that stored nothing that we may rely on; `retry_after` is in seconds, None when the store named none."""

    def __init__(self, kind: PutFailure, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.retry_after = retry_after


class IllegalTransition(AgentError):
    """A local event in a state that does not know it; remote ones are never raised."""
