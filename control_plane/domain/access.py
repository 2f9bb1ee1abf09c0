"""The caller of a use case: its first argument.

Rule: every entry point (REST, CLI, a page) builds a `Principal`; no use case reads a token or a header.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. `subject` names it in logs and scopes its idempotency keys."""

    subject: str


ANONYMOUS: Final = Principal("anonymous")
"""The caller when authentication is off."""
