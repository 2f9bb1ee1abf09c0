"""What a key may sign: by its roles, its paths, the owners that it acts for, and the end of its life.

Rule: pure, and it imports no PyNaCl; an unsigned agent does not import it. A command that a key may not sign counts as
one that is not signed.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Final

from device_agent.transfer.records import Afterwards, Order, ReceiptDue
from device_agent.trust.covering import covers_pattern
from device_agent.trust.verdict import Known, Unverified
from schemas.errors import SchemaError
from schemas.globs import Globs, components_of
from schemas.messages import (
    CancelUpload,
    CloseUpload,
    Command,
    DownloadFile,
    GrantParts,
    ListFiles,
    SelectFiles,
)
from schemas.names import UNKNOWN_OWNER, covers_owner
from schemas.signing.documents import KeyEntry, KeyList, KeyRole
from schemas.topics import CONTROL_PLANE

_OF_TRANSFERS: Final = (GrantParts, CloseUpload)
_EVERY_PATH: Final = "/**"


class SignedBy:
    """The key that signed a command: its entry, the list that has it, and the payload that it signed."""

    def __init__(self, entry: KeyEntry, keys: KeyList, payload: bytes) -> None:
        self.entry: Final = entry
        self.digest: Final = hashlib.sha256(payload).digest()
        self._keys = keys

    @property
    def is_operator(self) -> bool:
        """Whether it is the key of a person: it does not act for the control plane."""
        return not self.acts_for(CONTROL_PLANE)

    @property
    def ends(self) -> bool:
        """Whether the key or its list has an end, after which it signs nothing."""
        return (self.entry.expires or self._keys.expires) is not None

    @property
    def scope(self) -> str:
        """What stands for the paths of this key: the same for keys with the same paths, empty for every path."""
        if _EVERY_PATH in self.entry.paths:
            return ""
        # No path has a zero byte.
        return hashlib.sha256("\0".join(sorted(set(self.entry.paths))).encode()).hexdigest()[:32]

    def acts_for(self, owner: str) -> bool:
        """Whether this key may grant and close uploads of an owner."""
        return covers_owner(self.entry.owners, owner)

    def owns(self, upload: Order | Afterwards | ReceiptDue) -> bool:
        """Whether this key may grant, close and acknowledge an upload; one of an unknown owner is its beginner's."""
        if KeyRole.TRANSFER not in self.entry.roles:
            return False
        if upload.owner == UNKNOWN_OWNER:
            return upload.principal == self.entry.principal
        return self.acts_for(upload.owner)

    def require(self, command: Command, known: Known) -> None:
        """`Unverified` when this key may not sign this command about what is `known`."""
        for reason in self._refusals(command, known):
            text = f"a command that {self.entry.principal} has signed: {reason}"
            raise Unverified(text)

    def _refusals(self, command: Command, known: Known) -> Iterator[str]:
        for expires in (self.entry.expires, self._keys.expires):
            if expires is not None and command.issued_at is not None and command.issued_at > expires:
                yield "it was signed after the end of the key, or of the list"
        payload = command.payload
        yield from self._lacks(KeyRole.TRANSFER if isinstance(payload, _OF_TRANSFERS) else KeyRole.COMMAND)
        match payload:
            case DownloadFile():
                yield from self._refusals_of_download(payload, known)
            case GrantParts() | CloseUpload():
                upload = known.order or known.after
                if upload is not None and not self.owns(upload):
                    yield f"the key is not for uploads of {upload.owner}"
            case CancelUpload() if known.order is not None:
                yield from self._outside(known.order.file_path)
            case ListFiles(pattern=pattern):
                yield from self._outside(pattern, covers=self._covers_pattern)
            case SelectFiles(paths=paths):
                # A type stands for patterns of this device, which whoever made the key need not know.
                yield from self._outside(*paths, *known.patterns, covers=self._covers_pattern)

    def _refusals_of_download(self, payload: DownloadFile, known: Known) -> Iterator[str]:
        if known.path is not None:
            yield from self._outside(known.path)
        if payload.pregranted:
            yield from self._lacks(KeyRole.TRANSFER)
            if payload.owner != UNKNOWN_OWNER and not self.acts_for(payload.owner):
                yield f"the key is not for uploads of {payload.owner}"
        order = known.order
        if order is not None:
            # A new attempt ends the one before, as a cancel does.
            yield from self._outside(order.file_path)
            if payload.owner != order.owner and not self.owns(order):
                yield f"the key is not for uploads of {order.owner}"

    def _lacks(self, role: KeyRole) -> Iterator[str]:
        if role not in self.entry.roles:
            yield f"the key has not the role {role}"

    def _outside(self, *paths: str, covers: Callable[[str], bool] | None = None) -> Iterator[str]:
        """One reason for each of these that is not among the key's paths; `covers` decides about patterns."""
        if _EVERY_PATH in self.entry.paths:
            # Also what is no path: it is refused with an answer.
            return
        for path in paths:
            try:
                components_of(path)
                covered = self._globs.covers(path) if covers is None else covers(path)
            except SchemaError:
                covered = False
            if not covered:
                yield "the key is not for this path"

    def _covers_pattern(self, pattern: str) -> bool:
        return covers_pattern(self.entry.paths, pattern)

    @cached_property
    def _globs(self) -> Globs:
        # As for exclusions: a dot is no exception, and what lies below a folder is covered with it.
        return Globs.excluding(self.entry.paths)
