"""The root of trust of a site on this machine: its key lies with the data of the site.

Rule: made once, without a question: who reads the site's folder has its control plane's key too. A fleet of more
than one machine keeps its root elsewhere (`backhaul keys init`).
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from control_plane.cli.rest.client import ControlPlane
from schemas.signing.documents import KeyEntry, KeyList, KeyRole, RootDocument, SignedDocument, TrustDocument
from schemas.signing.ed25519 import Signer
from schemas.signing.key_files import create_key, read_key
from schemas.signing.trust import sign_document
from schemas.topics import CONTROL_PLANE, Topics

FOLDER: Final = "trust"
ROOT_KEY: Final = "root-key.json"


def ensure_trust(plane: ControlPlane, directory: Path, topics: Topics | None = None) -> bool:
    """Let the fleet obey the key of this control plane; False where another root than the site's own decides.

    `OSError` when the key of the root cannot be made or read.
    """
    found = plane.call("GET", "/keys")
    if any(one["public_key"] == found["public_key"] for one in found["keys"]):
        return True
    signer = _root_key(directory / FOLDER)
    topic = (topics or Topics()).keys()
    roots = _roots(found, signer, topic)
    if roots is None:
        return False
    now = datetime.now(UTC)
    entry = KeyEntry(
        found["public_key"], CONTROL_PLANE, (KeyRole.COMMAND, KeyRole.TRANSFER), ("/**",), (CONTROL_PLANE,)
    )
    keys = KeyList(1, (found["version"] or 0) + 1, now, (entry,))
    document = TrustDocument(roots, sign_document(keys, topic, [signer]))
    plane.call("PUT", "/keys", json=msgspec.to_builtins(document))
    return True


def _root_key(folder: Path) -> Signer:
    folder.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        return create_key(folder / ROOT_KEY)
    return read_key(folder / ROOT_KEY)


def _roots(found: Mapping[str, Any], signer: Signer, topic: str) -> tuple[SignedDocument, ...] | None:
    """The roots that are published, else a first one; None where the site's key is not the only one of the root."""
    if found["document"] is None:
        root = RootDocument(1, 1, (signer.verifier.text,), datetime.now(UTC))
        return (sign_document(root, topic, [signer]),)
    published = msgspec.convert(found["document"], TrustDocument)
    root = msgspec.json.decode(published.roots[-1].document, type=RootDocument)
    return published.roots if root.version == 1 and root.keys == (signer.verifier.text,) else None
