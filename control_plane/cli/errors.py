"""The errors that end a command, each with its exit code.

Exception
└── CliError          one clear line, and an exit code
    ├── Failed        1: the operation was tried and failed
    │   ├── OutputLost   the result cannot be written
    │   └── Refused   the control plane answered with a problem (RFC 9457)
    │       ├── NotAllowed    4: no token, one that is not valid, or one that may not do this
    │       └── Unavailable   it, its proxy or its database is unavailable for a while
    ├── Misused       2: an option or setting is wrong
    │   ├── MissingExtra   a part of Backhaul that is not installed
    │   └── NotConfirmed   a question was answered with no, or could not be asked
    ├── Unreachable   3: no answer
    └── TimedOut      124: `--timeout` is over
"""

import shlex
import sys
from collections.abc import Mapping
from typing import Any, Final

DONE: Final = 0
PARTIAL: Final = 5
"""A part was done: of the executions of a job, or of the files that were fetched."""

TIMED_OUT: Final = 124
"""As timeout(1) exits."""

INTERRUPTED: Final = 130
"""128 + SIGINT."""

BROKEN_PIPE: Final = 141
"""128 + SIGPIPE: the reader of the output has closed it, as in `backhaul uploads | head -1`."""

EXIT_CODES: Final[Mapping[int, str]] = {
    DONE: "done",
    1: "failed: it was tried, and the control plane, the device or the object store refused or could not",
    2: "usage: an option, an argument or a setting is wrong; nothing was sent",
    3: "unreachable: the control plane, the broker or the object store gave no answer",
    4: "not allowed: there is no token, it is not valid, or it may not do this (401, 403)",
    PARTIAL: "partial: a job ended with some of its files, or some files could not be fetched",
    TIMED_OUT: "timeout: what --wait or `job watch` waits for continues after --timeout",
    INTERRUPTED: "Ctrl-C; what was requested continues",
    BROKEN_PIPE: "the reader of the output closed it, as in `backhaul upload list | head -1`",
}
"""Every exit code, with its meaning: `backhaul help exit-codes`."""

_EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "cli": ("aiomqtt", "boto3", "botocore", "httpx", "jmespath", "pydantic_settings", "rich", "structlog", "typer"),
    "demo": ("iotcore", "nanio"),
    "server": ("alembic", "fastapi", "jwt", "prometheus_client", "sqlalchemy", "sqlmodel", "starlette", "uvicorn"),
    "tui": ("textual",),
}


class CliError(Exception):
    """The command ends with `exit_code`; the text is the line that is printed."""

    exit_code = 1
    title = "failed"

    def document(self) -> dict[str, Any]:
        """The members of a problem document, for `--json`."""
        return {"title": self.title, "detail": str(self)}


class Failed(CliError):
    """The operation was tried and failed."""


class OutputLost(Failed):
    """Standard output is closed, or on a full disk: what the command did is done, and its result is not shown."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror or error}")


class Refused(Failed):
    """The control plane answered with a problem."""

    def __init__(self, text: str, problem: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.problem = dict(problem)

    def document(self) -> dict[str, Any]:
        """The control plane's own problem document."""
        return self.problem


class NotAllowed(Refused):
    """The caller is not signed in (401), or may not do this (403)."""

    exit_code = 4


class Unavailable(Refused):
    """The control plane, its proxy or its database is unavailable for a while: 502, 503 or 504.

    `retry_after` is the `Retry-After` of the answer in seconds, if it has one.
    """

    def __init__(self, text: str, problem: Mapping[str, Any], *, retry_after: float | None = None) -> None:
        super().__init__(text, problem)
        self.retry_after = retry_after


class Misused(CliError):
    """An option or a setting is wrong."""

    exit_code = 2
    title = "usage"


class NotConfirmed(Misused):
    """A question was answered with no, or could not be asked: nothing was done."""


class MissingExtra(Misused):
    """A part of Backhaul that is not installed; the text is the line that installs it."""

    def __init__(self, extra: str) -> None:
        # The environment of this program, which need not be the shell's.
        pip = f"{shlex.quote(sys.executable)} -m pip install 'backhaul[{extra}]'"
        super().__init__(f"this command needs a part that is not installed: run `{pip}`")


class Unreachable(CliError):
    """No answer came."""

    exit_code = 3
    title = "unreachable"


class TimedOut(CliError):
    """What is waited for continues after `--timeout`."""

    exit_code = TIMED_OUT
    title = "timeout"


def missing_extra(error: ImportError) -> MissingExtra | None:
    """The extra that contains the module whose import failed; None when no extra does."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in _EXTRAS.items():
        if module in modules:
            return MissingExtra(extra)
    return None
