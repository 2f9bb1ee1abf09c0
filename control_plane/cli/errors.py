"""How a command can end badly, told apart by its exit code.

Exception
└── CliError          one clear line, and an exit code
    ├── Failed        1: it was tried, and did not work
    │   └── Refused   the control plane answered with a problem (RFC 9457)
    │       └── Unavailable   something on the way to it, or behind it, is away for a while
    ├── Misused       2: what was typed, or set, cannot be done
    │   └── MissingExtra   a part of Backhaul that is not installed
    └── Unreachable   3: nobody answers
"""

from collections.abc import Mapping
from typing import Any, Final

DONE: Final = 0
INTERRUPTED: Final = 130
"""128 + SIGINT."""

BROKEN_PIPE: Final = 141
"""128 + SIGPIPE: the reader of our output has gone, as in `backhaul uploads | head -1`."""

_EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "cli": ("aiomqtt", "boto3", "botocore", "httpx", "pydantic_settings", "rich", "structlog", "typer"),
    "demo": ("iotcore", "nanio"),
    "server": ("alembic", "fastapi", "jwt", "prometheus_client", "sqlalchemy", "sqlmodel", "starlette", "uvicorn"),
}


class CliError(Exception):
    """The command ends with `exit_code`; the text is the line that the person reads."""

    exit_code = 1
    title = "failed"

    def document(self) -> dict[str, Any]:
        """What `--json` prints: the members of a problem document."""
        return {"title": self.title, "detail": str(self)}


class Failed(CliError):
    """It was tried, and did not work."""


class Refused(Failed):
    """The control plane answered with a problem."""

    def __init__(self, text: str, problem: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.problem = dict(problem)

    def document(self) -> dict[str, Any]:
        """The problem as it came."""
        return self.problem


class Unavailable(Refused):
    """Something on the way to the control plane, or behind it, is away for a while: 502, 503 or 504.

    `retry_after` is for how many seconds, as far as it was said.
    """

    def __init__(self, text: str, problem: Mapping[str, Any], *, retry_after: float | None = None) -> None:
        super().__init__(text, problem)
        self.retry_after = retry_after


class Misused(CliError):
    """What was typed, or set, cannot be done."""

    exit_code = 2
    title = "usage"


class MissingExtra(Misused):
    """A part of Backhaul that is not installed; the text is the line that installs it."""

    def __init__(self, extra: str) -> None:
        super().__init__(f"this command needs a part that is not installed: run `pip install 'backhaul[{extra}]'`")


class Unreachable(CliError):
    """Nobody answers."""

    exit_code = 3
    title = "unreachable"


def missing_extra(error: ImportError) -> MissingExtra | None:
    """The extra that an import failed for; None when the missing module is of no extra."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in _EXTRAS.items():
        if module in modules:
            return MissingExtra(extra)
    return None
