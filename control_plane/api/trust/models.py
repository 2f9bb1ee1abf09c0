"""The shapes of the keys that agents obey.

Rule: as `api/models.py`. Public keys only.
"""

from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field

from control_plane.api.models import Instant, Output
from control_plane.presentation import known_instant
from control_plane.services.trust.expiry import Expiry, expiry_of, warnings_of
from control_plane.services.trust.ports import StoredTrust
from schemas.signing.documents import KeyEntry
from schemas.signing.ed25519 import Verifier
from schemas.signing.trust import Trust, root_digest

KEY: Final[dict[str, Any]] = {
    "kid": "ed25519:HIzmVPcVUC07T_U1X0oDJA",
    "public_key": "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik",
    "principal": "control-plane",
    "roles": ["command", "transfer"],
    "paths": ["/**"],
    "owners": ["control-plane"],
    "expires": None,
    "expiry": "fine",
}
KEYS: Final[dict[str, Any]] = {
    "root": 1,
    "version": 3,
    "expires": None,
    "root_sha256": "9f2c4e6a8b0d1f359f2c4e6a8b0d1f359f2c4e6a8b0d1f359f2c4e6a8b0d1f35",
    "published_at": "2025-11-01T10:00:00.000Z",
    "published_by": "ana",
    "kid": "ed25519:HIzmVPcVUC07T_U1X0oDJA",
    "public_key": "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik",
    "keys": [KEY],
    "revoked": [],
    "warnings": [],
    "document": {"roots": [{"document": "{}", "signatures": []}], "keys": {"document": "{}", "signatures": []}},
}


class KeyDocument(Output):
    """A key that agents obey."""

    model_config = ConfigDict(json_schema_extra={"examples": [KEY]})

    kid: str
    public_key: str
    principal: str
    roles: list[str]
    paths: list[str]
    owners: list[str]
    expires: Instant | None
    expiry: Annotated[Expiry, Field(description="`soon` from 90 days before it expires; then devices refuse it.")]

    @classmethod
    def of(cls, kid: str, entry: KeyEntry, now: float) -> Self:
        """One entry of the list at `now` (s since the epoch)."""
        return cls(
            kid=kid,
            public_key=entry.public_key,
            principal=entry.principal,
            roles=[role.value for role in entry.roles],
            paths=list(entry.paths),
            owners=list(entry.owners),
            expires=None if entry.expires is None else known_instant(entry.expires.timestamp()),
            expiry=expiry_of(entry.expires, now),
        )


_LIST_ENDS: Final = (
    "When the list ends: then devices obey nobody; null: never. `warnings` has it in the last third of its life, at "
    "most 90 days ahead."
)


class KeysDocument(Output):
    """The keys that agents obey, as they are published; and the key with which this control plane signs."""

    model_config = ConfigDict(json_schema_extra={"examples": [KEYS]})

    root: Annotated[int | None, Field(description="The version of the root; null before keys were published.")]
    version: Annotated[int | None, Field(description="The version of the list; agents report it as `keys_version`.")]
    expires: Annotated[Instant | None, Field(description=_LIST_ENDS)]
    root_sha256: Annotated[str | None, Field(description="The SHA-256 of the first root: by it an image trusts it.")]
    published_at: Instant | None
    published_by: str | None
    kid: Annotated[str, Field(description="The key with which this replica signs commands.")]
    public_key: str
    keys: list[KeyDocument]
    revoked: list[str]
    warnings: Annotated[list[str], Field(description="What needs a person soon: a key, or the list, that expires.")]
    document: Annotated[
        dict[str, Any] | None, Field(description="What is retained on the topic of the keys: a `TrustDocument`.")
    ]

    @classmethod
    def of(
        cls, own: Verifier, stored: StoredTrust | None, trust: Trust | None, document: dict[str, Any] | None, now: float
    ) -> Self:
        """What is published at `now` (s since the epoch); None before anything is."""
        listed = trust.keys if trust is not None else None
        entries = [] if listed is None else [(Verifier.of_text(one.public_key).kid, one) for one in listed.entries]
        return cls(
            root=None if stored is None else stored.root,
            version=None if stored is None else stored.version,
            expires=None if listed is None or listed.expires is None else known_instant(listed.expires.timestamp()),
            root_sha256=None if trust is None else root_digest(trust.roots[0]),
            published_at=None if stored is None else known_instant(stored.published_at),
            published_by=None if stored is None else stored.published_by,
            kid=own.kid,
            public_key=own.text,
            keys=[KeyDocument.of(kid, one, now) for kid, one in entries],
            revoked=[] if listed is None else list(listed.revoked),
            warnings=warnings_of(trust, now, own.kid),
            document=document,
        )
