"""How a step or a check ends that does not end well.

Rule: both are about the agent; a fault of the kit itself is any other exception.
"""

from typing import NoReturn


class Wrong(Exception):
    """The agent contradicts the protocol: what was expected, and what was seen."""

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(f"expected {expected}; seen {seen}")
        self.expected = expected
        self.seen = seen


class NotApplicable(Exception):
    """The question has no meaning for this agent; the text is the reason."""


def fail(expected: str, seen: str) -> NoReturn:
    """Raise `Wrong`."""
    raise Wrong(expected, seen)


def require(condition: object, expected: str, seen: object) -> None:
    """`Wrong` unless `condition` holds."""
    if not condition:
        raise Wrong(expected, str(seen))
