"""What the domain refuses.

Exception
└── DomainError
    └── IllegalTransition    a request of ours that the state does not allow
"""

from control_plane.domain.uploads.model import State


class DomainError(Exception):
    """Something that the domain does not allow."""


class IllegalTransition(DomainError):
    """The upload's state does not allow this request; `state` is the one it stays in."""

    def __init__(self, request: str, state: State) -> None:
        super().__init__(f"an upload that is {state} cannot be {request}")
        self.request = request
        self.state = state
