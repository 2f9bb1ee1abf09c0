"""The shapes of the sign-in.

Rule: as `api/models.py`. No answer has a token.
"""

from typing import Annotated, Self

from pydantic import ConfigDict, Field

from control_plane.api.models import Output
from control_plane.domain.access import Principal


class SessionDocument(Output):
    """Who the caller is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"auth": True, "caller": "operator"}]})

    auth: Annotated[bool, Field(description="Whether calls need a token or a signed-in browser.")]
    caller: str

    @classmethod
    def of(cls, caller: Principal, *, auth: bool) -> Self:
        """The caller."""
        return cls(auth=auth, caller=caller.subject)
