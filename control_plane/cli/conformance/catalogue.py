"""What a check is, and the list of all checks.

Rule: a check answers one question about one section of docs/protocol.md. It returns when the agent is right, raises
`Wrong` when it is not, and `NotApplicable` when the question has no meaning for this agent.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from control_plane.cli.conformance.bench.site import Bench

Body = Callable[[Bench], Awaitable[None]]

FOLDER: Final = "folder"
"""The kit writes files where the agent reads them."""

PROCESS: Final = "process"
"""The kit started the agent, and can start it again."""

STORE: Final = "store"
"""There is an object store that completes uploads."""

LONG: Final = "long"
"""Checks of several minutes are wanted."""

_REASONS: Final = {
    LONG: "it takes minutes: ask for it with --long",
    FOLDER: "the kit cannot write files on the device: it needs --folder, and this run has --file",
    PROCESS: "the kit cannot start the agent again: give its command after --",
    STORE: "no object store: set AWS_ENDPOINT and S3_BUCKET_NAME, or install backhaul[demo]",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One question. `needs` are capabilities of the agent, or parts of the bench; a check that is `last` looks back."""

    identifier: str
    section: str
    title: str
    remedy: str
    body: Body
    needs: tuple[str, ...] = ()
    last: bool = False

    def inapplicable(self, bench: Bench) -> str | None:
        """Why this check does not apply; None when it does."""
        for need in self.needs:
            if need in _REASONS:
                if need not in bench.parts:
                    return _REASONS[need]
            elif need not in bench.capabilities:
                return f"the agent does not announce the capability `{need}`"
        return None


CATALOGUE: Final[list[Check]] = []
"""All checks, in the order in which they run. Importing `control_plane.cli.conformance.checks` fills it."""


def check(
    identifier: str, *, section: str, title: str, remedy: str, needs: tuple[str, ...] = (), last: bool = False
) -> Callable[[Body], Body]:
    """Add the decorated function to the catalogue."""

    def add(body: Body) -> Body:
        CATALOGUE.append(Check(identifier, section, title, remedy, body, needs, last))
        return body

    return add
