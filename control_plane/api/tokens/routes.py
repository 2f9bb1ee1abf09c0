"""Tokens over REST: list, look, revoke.

Rule: who may revoke others' tokens stops their work, so the calls need `devices:admin`, and are not in `reach.BOUND`.
"""

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from control_plane.api.auth import JTI, Caller, needs
from control_plane.api.bodies import matching
from control_plane.api.documents import problems
from control_plane.api.parameters import Paged
from control_plane.api.tokens.models import TokenDocument, TokenPage
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.services.sessions.tokens import TokenService

router = router_of_calls(tags=["tokens"])

TokenId = Annotated[
    str, *matching(JTI, "must be the jti of a token"), Path(description="The token's `jti`; it may hold a slash.")
]
TokensQuery = Annotated[Paged, Query()]


async def _tokens_of(request: Request) -> TokenService:
    tokens: TokenService = request.app.state.tokens
    return tokens


Tokens = Annotated[TokenService, Depends(_tokens_of)]


@router.get(
    "/tokens",
    operation_id="listTokens",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="List tokens that were used or revoked",
    responses=problems(422),
)
async def list_tokens(tokens: Tokens, caller: Caller, query: TokensQuery) -> TokenPage:
    """Tokens that have not expired, the one that expires first at the front. One that was never used is not known."""
    found, cursor = await tokens.tokens(caller, query.page)
    return TokenPage(tokens=[TokenDocument.of(one, caller.token_id) for one in found], cursor=cursor)


@router.get(
    "/tokens/{token_id:path}",
    operation_id="getToken",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="Look at one token",
    responses=problems(404, 422),
)
async def get_token(token_id: TokenId, tokens: Tokens, caller: Caller) -> TokenDocument:
    """One token that was used or revoked."""
    return TokenDocument.of(await tokens.token(caller, token_id), caller.token_id)


@router.post(
    "/tokens/{token_id:path}/revoke",
    operation_id="revokeToken",
    openapi_extra=needs(Scope.DEVICES_ADMIN),
    summary="Revoke a token",
    responses=problems(422),
)
async def revoke_token(token_id: TokenId, tokens: Tokens, caller: Caller) -> TokenDocument:
    """Refuse a token from now on, on every replica within two seconds; and each browser that signed in with it.

    A token that was never used can be revoked too. A repeat changes nothing.
    """
    return TokenDocument.of(await tokens.revoke(caller, token_id), caller.token_id)
