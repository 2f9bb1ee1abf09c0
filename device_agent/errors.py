"""The errors of the agent.

AgentError
├── SettingsError          a setting is wrong; the text is the one line to print before the exit
├── TrustError             the root of trust or the device's key cannot be used; the text is the one line to print
├── JournalError           progress cannot be made durable: answered `no_space`, tried again
├── FileRefused            the file cannot be opened, listed or read; `code` is sent to the owner
├── ProxyFailed            an HTTP proxy does not open the connection; also an `OSError`
├── HostNotAllowed         `UPLOAD_HOSTS` does not allow a URL; nothing was sent
├── PutFailed              one PUT did not store its part; `kind` decides what follows
└── IllegalTransition      a bug of the agent: an event that the state does not allow
"""

from enum import StrEnum

from schemas.values import ErrorCode


class PutFailure(StrEnum):
    """The meaning of the answer to a PUT (protocol.md section 4)."""

    EXPIRED_OR_FORBIDDEN = "expired_or_forbidden"
    """403: after the URL's life it is renewed; before, it counts as a refusal."""
    GONE = "gone"
    """404 with an S3 code: the multipart upload, the object or the bucket does not exist any more."""
    BAD_DIGEST = "bad_digest"
    """400 BadDigest: the bytes that arrived do not match the digest."""
    TRY_AGAIN = "try_again"
    """Timeouts, resets, 429, 5xx, 2xx without an ETag, and answers without an S3 error, as from a portal or a proxy."""
    REFUSED = "refused"
    """Any other S3 error: the same request would be refused again."""
    STOPPED = "stopped"
    """The agent stopped the PUT."""
    SOURCE_CHANGED = "source_changed"
    """The file is not the one with which the upload began."""
    SOURCE_UNREADABLE = "source_unreadable"
    """The device cannot read the file."""
    HOST_NOT_ALLOWED = "host_not_allowed"
    """`UPLOAD_HOSTS` does not allow the URL."""
    BAD_HEADER = "bad_header"
    """The grant needs a header that the agent does not send."""


class AgentError(Exception):
    """The root of all errors that the agent raises by intent."""


class SettingsError(AgentError):
    """A setting that the agent cannot run with; the text names it and what is allowed."""


class TrustError(AgentError):
    """A root of trust, or a key of this device, that cannot be used; the text names the file, and never a key."""


class EnrolmentFailed(AgentError):
    """A control plane gave no bundle, or one that is refused; the text names what to do."""


class JournalError(AgentError):
    """The state folder could not be read or written; earlier records are still there."""


class FileRefused(AgentError):
    """A file that is not uploaded; `code` is the error code of the response, the text its message."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class ProxyFailed(AgentError, ConnectionError):
    """An HTTP proxy that cannot be reached, or that does not open the connection; the text has no credentials."""


class HostNotAllowed(AgentError):
    """A URL that `UPLOAD_HOSTS` does not allow; the text has an entry that would allow it, never the URL."""


class PutFailed(AgentError):
    """A PUT without a reliable result; `retry_after` is in seconds, None when the object store gave none."""

    def __init__(self, kind: PutFailure, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.retry_after = retry_after


class IllegalTransition(AgentError):
    """A local event in a state that does not allow it; remote events are never raised."""
