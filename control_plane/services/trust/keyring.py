"""The key of one signer of commands: the control plane's, or an operator's in the direct command line.

Rule: the private key is in this object alone; what is published carries its name and signatures.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from control_plane.services.ports.messenger import UserProperties
from schemas.signing.canonical import SignedKind

if TYPE_CHECKING:
    from schemas.signing.ed25519 import Signer


@dataclass(frozen=True, slots=True)
class ControlPlaneKey:
    """Signs commands and births in the name of this process."""

    signer: "Signer" = field(repr=False)

    @property
    def kid(self) -> str:
        """The name of the key, by which agents find it in their list."""
        return self.signer.kid

    def sign(self, kind: SignedKind, topic: str, payload: bytes) -> UserProperties:
        """The user properties of a message of this kind."""
        return tuple(self.signer.sign(kind, topic, payload).properties())
