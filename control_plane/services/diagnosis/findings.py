"""One finding: the result of one check, and what to do about it.

Rule: a neighbour that is away is a finding, never an error.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from control_plane.services.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `fixed` is True when it failed at first and was repaired.

    `remedy` is what a person does about it; None where nothing is to be done.
    """

    name: str
    fine: bool
    text: str
    remedy: str | None = None
    fixed: bool = False


Look = Callable[[], Awaitable[Sequence[Finding]]]
"""One check: its findings, or the `ServiceError` of the neighbour that it examines."""


async def looked(name: str, look: Look, remedy: str | None = None) -> list[Finding]:
    """The findings of a check; a `ServiceError` becomes one finding of this name, with this remedy."""
    try:
        return list(await look())
    except ServiceError as error:
        return [Finding(name, fine=False, text=str(error), remedy=remedy)]
