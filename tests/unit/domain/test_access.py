"""The rights of a caller."""

import pytest

from control_plane.domain.access import ALL, ANONYMOUS, Principal, Scope, require
from control_plane.domain.errors import Forbidden, SelectorError


def test_a_caller_without_given_scopes_has_all_of_them() -> None:
    assert Principal("me").scopes == ALL == frozenset(Scope)
    assert ANONYMOUS.scopes == ALL


@pytest.mark.parametrize("scope", Scope)
def test_a_scope_that_is_missing_is_refused_with_its_name(scope: Scope) -> None:
    require(Principal("me", frozenset({scope})), scope)
    with pytest.raises(Forbidden, match=f"the scope {scope}"):
        require(Principal("me", ALL - {scope}), scope)


def test_the_clients_of_a_caller_must_be_a_selector() -> None:
    with pytest.raises(SelectorError):
        Principal("me", clients="site in (")
