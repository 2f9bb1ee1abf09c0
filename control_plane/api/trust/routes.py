"""Keys over REST: look at what agents obey, publish a newer list.

Rule: whoever publishes decides nothing: agents take what the root of trust signed. The calls are about the whole fleet,
so they are not in `reach.BOUND`.
"""

from typing import Annotated, Any

import msgspec
from fastapi import Body, Depends, Request

from control_plane.api.auth import Caller, needs
from control_plane.api.documents import problems
from control_plane.api.tokens.reach import router_of_calls
from control_plane.api.trust.models import KEYS, KeysDocument
from control_plane.domain.access import Scope
from control_plane.services.trust.service import TrustService

router = router_of_calls(tags=["keys"])

Document = Annotated[
    dict[str, Any],
    Body(description="A `TrustDocument`: every root, and the list of keys.", examples=[KEYS["document"]]),
]


async def _trust_of(request: Request) -> TrustService:
    trust: TrustService = request.app.state.trust
    return trust


Trusted = Annotated[TrustService, Depends(_trust_of)]


@router.get(
    "/keys",
    operation_id="getKeys",
    openapi_extra=needs(Scope.CLIENTS_READ),
    summary="Look at the keys that agents obey",
)
async def get_keys(trust: Trusted, caller: Caller) -> KeysDocument:
    """What is published, and the key with which this replica signs."""
    del caller
    await trust.load()
    return _shown(trust)


@router.put(
    "/keys",
    operation_id="putKeys",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="Publish the keys that agents obey",
    responses=problems(409, 422),
)
async def put_keys(trust: Trusted, caller: Caller, document: Document) -> KeysDocument:
    """Publish a newer list of keys, with the roots that lead to it. The first one founds the root of trust.

    Refused with 409 are documents with other roots, too few signatures, or an older version; with 403 the first one,
    unless the caller has every right, for all clients, or the settings name this root (`TRUST_ROOT`).
    """
    await trust.replace(caller, msgspec.json.encode(document))
    return _shown(trust)


def _shown(trust: TrustService) -> KeysDocument:
    stored = trust.stored
    document = None if stored is None else msgspec.json.decode(stored.document)
    return KeysDocument.of(trust.key.signer.verifier, stored, trust.trust, document, trust.now)
