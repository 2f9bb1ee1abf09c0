"""Who signed a command that another sender published, and whether the client obeys it.

Rule: this control plane makes the upload of such a command its own, and commands it again with its own key. So nothing
counts that the client itself would refuse: else a key for few files would get any file by way of this one, and whoever
repeats an old command would have it signed anew.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.errors import SchemaError
from schemas.globs import Globs, components_of
from schemas.messages import CloseUpload, Command, CommandPayload, DownloadFile
from schemas.names import UNKNOWN_OWNER, covers_owner
from schemas.signing.canonical import PUBLIC_KEY_SIZE, from_text, key_id
from schemas.signing.documents import KeyEntry, KeyRole

if TYPE_CHECKING:
    from schemas.signing.documents import KeyList

LATE: Final = 3600.0
"""Seconds for which a client accepts commands for the session before the present one."""

_EVERY_PATH: Final = "/**"


@dataclass(frozen=True, slots=True)
class Commander:
    """The key that signed a command: its entry, and the list that has it."""

    entry: KeyEntry
    keys: "KeyList"

    @property
    def kid(self) -> str:
        """The name of the key."""
        return key_id(from_text(self.entry.public_key, PUBLIC_KEY_SIZE))

    def refusal(self, command: Command, session: str | None, now: float) -> str | None:
        """Why the client, which is in this `session` as far as known, does not obey the command; None when it does.

        `may_read` decides about the path, `owners_for` about an upload that is known.
        """
        payload = command.payload
        needed = {KeyRole.COMMAND} if isinstance(payload, DownloadFile) else {KeyRole.TRANSFER}
        if isinstance(payload, DownloadFile) and payload.pregranted:
            needed.add(KeyRole.TRANSFER)
        if isinstance(payload, DownloadFile | CloseUpload) and not needed <= set(self.entry.roles):
            return "role"
        if isinstance(payload, DownloadFile) and not self._grants_for(payload):
            return "owner"
        issued_at = None if command.issued_at is None else command.issued_at.timestamp()
        ends = [one.timestamp() for one in (self.entry.expires, self.keys.expires) if one is not None]
        if any(end < max(now, issued_at or now) for end in ends):
            return "expired"
        if command.session is None or (
            command.session != session and (issued_at is None or abs(now - issued_at) > LATE)
        ):
            return "session"
        return None

    def owners_for(self, payload: CommandPayload) -> tuple[str, ...]:
        """Patterns for the owners of an upload that this command may change, as the client compares them.

        A download may begin its own owner's upload anew. Who began an upload of an unknown owner is not stored, so the
        key must be for that name; the client compares the principal.
        """
        granting = self.entry.owners if KeyRole.TRANSFER in self.entry.roles else ()
        # A star in the name of an owner is no pattern.
        if isinstance(payload, DownloadFile) and "*" not in payload.owner:
            return (*granting, payload.owner)
        return granting

    def _grants_for(self, payload: DownloadFile) -> bool:
        """Whether a download carries no URLs, or the key may grant them in the name of its owner."""
        known = payload.pregranted and payload.owner != UNKNOWN_OWNER
        return not known or covers_owner(self.entry.owners, payload.owner)

    def may_read(self, path: str | None) -> bool:
        """Whether the key is for this file; None where it is not known which one is meant."""
        if _EVERY_PATH in self.entry.paths:
            return True
        try:
            return path is not None and bool(components_of(path)) and Globs.excluding(self.entry.paths).covers(path)
        except SchemaError:
            return False
