"""Errors of the domain.

Rule: a remote event never raises; only a local request that the state forbids does.

Exception
└── DomainError
    ├── BadKey               a file of a job whose key no object may have
    ├── BadText              a text of a request that cannot be read
    ├── IllegalTransition    a local request that the state of an upload does not allow
    ├── IllegalVerb          the same of a job
    └── SelectorError        a text that is no selector
"""

from control_plane.domain.uploads.model import State


class DomainError(Exception):
    """The root of the domain's errors."""


class BadKey(DomainError):
    """No object may have the key that a template gives a file."""


class BadText(DomainError, ValueError):
    """A text of a request cannot be read; the sentence names the form that is expected, and follows a field's name."""


class Forbidden(DomainError):
    """The caller may not do this; the text names what is missing: a scope, other clients, a second person."""


class IllegalTransition(DomainError):
    """The upload's state does not allow this request. The upload stays in `state`."""

    def __init__(self, request: str, state: State) -> None:
        super().__init__(f"an upload that is {state} cannot be {request}")
        self.request = request
        self.state = state


class IllegalVerb(DomainError):
    """The job's state does not allow this request. The job stays in `state`."""

    def __init__(self, request: str, state: str) -> None:
        super().__init__(f"a job that is {state} cannot be {request}")
        self.request = request
        self.state = state


class SelectorError(DomainError):
    """`text` is no selector: `why` is the fault, `position` the index of the character where it begins."""

    def __init__(self, text: str, position: int, why: str) -> None:
        before, after = text[max(0, position - 20) : position], text[position : position + 20]
        place = f"at the end, after {before!r}" if not after else f"at position {position}, before {after!r}"
        super().__init__(f"the selector is wrong {place}: {why}")
        self.text = text
        self.position = position
        self.why = why
