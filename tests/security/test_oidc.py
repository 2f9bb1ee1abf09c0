"""Tokens of an OpenID provider: RFC 8725's list against RFC 9068's tokens, the provider's keys, and its absence.

Rule: the provider is a function that answers documents; its keys are made once.
"""

import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.utils import base64url_encode

from control_plane.adapters.issuer import MOST, read_document
from control_plane.api.app import create_api
from control_plane.api.auth import LEEWAY, create_token
from control_plane.api.tokens.issuer import DISCOVERY, FRESH, LONGEST, PAUSE, Issuer, is_safe, usable
from control_plane.domain.access import Scope
from control_plane.observability import Metrics
from control_plane.services.errors import Transient
from control_plane.settings import Settings, SettingsError
from tests.support.fake_services import SECRET, SILENT, FakeServices, _faked, http_to
from tests.support.fakes import FakeClock

ISSUER: Final = "https://login.example/realms/fleet"
KEYS_AT: Final = "https://login.example/keys"
DAY: Final = 86_400
PRIVATE: Final[dict[str, Any]] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65_537, 2_048),
}
STRANGER: Final[dict[str, Any]] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65_537, 2_048),
}
_WRITERS: Final[dict[str, Any]] = {"EdDSA": OKPAlgorithm, "ES256": ECAlgorithm, "RS256": RSAAlgorithm}


def row(algorithm: str, **changes: object) -> dict[str, Any]:
    """The public key of an algorithm, as a provider publishes it."""
    found = json.loads(_WRITERS[algorithm].to_jwk(PRIVATE[algorithm].public_key()))
    return {**found, "kid": algorithm, "use": "sig", **changes}


def claims(**changes: object) -> dict[str, Any]:
    """The claims of a good access token with changes; None removes a claim."""
    now = int(time.time())
    merged: dict[str, Any] = {
        "iss": ISSUER, "sub": "ana", "aud": "backhaul", "iat": now, "exp": now + DAY, "jti": "t-1",
        "client_id": "tool", "scope": "openid clients:read", **changes,
    }  # fmt: skip
    return {name: value for name, value in merged.items() if value is not None}


def token(algorithm: str = "EdDSA", key: Any = None, headers: dict[str, Any] | None = None, **changes: object) -> str:  # noqa: ANN401
    """A good access token with changes; a header that is None is left out."""
    head = {"typ": "at+jwt", "kid": algorithm, **(headers or {})}
    return jwt.encode(claims(**changes), key or PRIVATE[algorithm], algorithm, {k: v for k, v in head.items() if v})


class Provider:
    """Answers documents; counts the reads. `away` answers none."""

    def __init__(self) -> None:
        self.discovery: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": KEYS_AT}
        self.keys: list[Any] = [row(algorithm) for algorithm in PRIVATE]
        self.away = False
        self.reads: list[str] = []

    async def read(self, url: str) -> bytes:
        self.reads.append(url)
        if self.away:
            text = "away"
            raise Transient(text)
        return json.dumps(self.discovery if url.endswith(DISCOVERY) else {"keys": self.keys}).encode()


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def services() -> FakeServices:
    return FakeServices()


@pytest.fixture
async def http(provider: Provider, clock: FakeClock, services: FakeServices) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings.load({"JWT_SECRET": SECRET, "OIDC_ISSUER": ISSUER})
    issuer = Issuer(ISSUER, settings.oidc_audience, settings.max_token_lifetime, clock, provider.read)
    api = create_api(settings, Metrics(SILENT), _faked(services, clock=services), issuer=issuer)
    async with http_to(api) as client:
        yield client


async def status(http: httpx.AsyncClient, text: str, path: str = "/clients") -> int:
    return (await http.get(path, headers={"Authorization": f"Bearer {text}"})).status_code


@pytest.mark.parametrize("algorithm", PRIVATE)
async def test_a_good_token_has_the_rights_that_the_provider_gave_it(http: httpx.AsyncClient, algorithm: str) -> None:
    assert await status(http, token(algorithm)) == 200
    assert await status(http, token(algorithm), "/uploads") == 403


async def test_a_token_without_scope_has_no_right(http: httpx.AsyncClient) -> None:
    assert await status(http, token(scope=None)) == 403
    assert await status(http, token(scope="openid profile")) == 403


async def test_tokens_of_the_secret_are_accepted_beside_it(http: httpx.AsyncClient) -> None:
    assert await status(http, create_token(SECRET, "me", 60)) == 200


def bad_tokens() -> Iterator[tuple[str, str]]:
    """(why, token): the list of RFC 8725, for tokens of a provider."""
    now = int(time.time())
    for algorithm, key in STRANGER.items():
        yield f"another {algorithm} key", token(algorithm, key)
        yield (
            f"{algorithm} under the kid of another",
            token(algorithm, headers={"kid": next(a for a in PRIVATE if a != algorithm)}),
        )
        published = json.dumps(row(algorithm)).encode()
        yield f"HS256 with the {algorithm} public key", forged(algorithm, published)
    yield (
        "HS256 with JWT_SECRET and the claims of the provider",
        jwt.encode(claims(iss=ISSUER, aud="other"), SECRET, "HS256"),
    )
    yield "HS512", jwt.encode(claims(), SECRET * 2, "HS512", {"typ": "at+jwt", "kid": "EdDSA"})
    yield "RS512 of an RS256 key", jwt.encode(claims(), PRIVATE["RS256"], "RS512", {"typ": "at+jwt", "kid": "RS256"})
    yield "PS256 of an RS256 key", jwt.encode(claims(), PRIVATE["RS256"], "PS256", {"typ": "at+jwt", "kid": "RS256"})
    yield "none", jwt.encode(claims(), "", "none", {"typ": "at+jwt", "kid": "EdDSA"})
    for kind in ("JWT", "id+jwt", "logout+jwt", "", None):
        yield f"typ {kind}", token(headers={"typ": kind})
    for kid in ("unknown", "", None, "../EdDSA", "' OR 1=1"):
        yield f"kid {kid}", token(headers={"kid": kid})
    yield (
        "jku and x5u of a stranger",
        token(key=STRANGER["EdDSA"], headers={"jku": "https://evil.example/k", "x5u": "https://evil.example/c"}),
    )
    yield "a key in the header", token(key=STRANGER["EdDSA"], headers={"jwk": row("EdDSA")})
    yield "a critical extension", token(headers={"crit": ["x"], "x": 1})
    for iss in ("https://login.example/realms/other", ISSUER + "/", "", None, [ISSUER]):
        yield f"iss {iss}", token(iss=iss) if not isinstance(iss, list) else forged_list()
    for aud in ("other", "", ["other"], None):
        yield f"aud {aud}", token(aud=aud)
    for name in ("sub", "exp", "iat", "jti"):
        without: dict[str, Any] = {name: None}
        yield f"no {name}", token(**without)
    yield "expired", token(exp=now - LEEWAY - 1)
    yield "not yet", token(nbf=now + DAY)
    yield "issued tomorrow", token(iat=now + DAY, exp=now + DAY + 60)
    yield "a life that is too long", token(iat=now, exp=now + DAY + 1)
    yield "a scope that is a list", token(scope=["clients:read"])
    yield "clients that are no selector", token(clients="site in (")
    yield "empty clients", token(clients=" ")
    head, body, signature = token().split(".")
    yield "no signature", f"{head}.{body}."
    yield "another body", f"{head}.{token(sub='root').split('.')[1]}.{signature}"


def forged(kid: str, key: bytes) -> str:
    """A token with an HMAC of any key: the library refuses to make one with a public key."""
    parts = [json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": kid}).encode(), json.dumps(claims()).encode()]
    signed = ".".join(base64url_encode(part).decode() for part in parts)
    return f"{signed}.{base64url_encode(hmac.digest(key, signed.encode(), 'sha256')).decode()}"


def forged_list() -> str:
    text = json.dumps(claims(iss=[ISSUER])).encode()
    return jwt.PyJWS().encode(text, PRIVATE["EdDSA"], "EdDSA", {"typ": "at+jwt", "kid": "EdDSA"})


BAD: Final = dict(bad_tokens())


@pytest.mark.parametrize("why", BAD)
async def test_a_bad_token_of_a_provider_is_refused(http: httpx.AsyncClient, services: FakeServices, why: str) -> None:
    answer = await http.get("/clients", headers={"Authorization": f"Bearer {BAD[why]}"})
    assert (answer.status_code, services.calls) == (401, [])
    assert BAD[why] not in answer.text


@pytest.mark.parametrize(
    "changes",
    [{"alg": "HS256"}, {"use": "enc"}, {"k": "c2VjcmV0"}, {"kid": 7}, {"kid": None}, {"crv": "P-521"}, {"kty": ["OKP"]},
     {"x": "!"}, {"d": "AAAA"}, {"kty": "oct"}],
)  # fmt: skip
def test_a_key_that_signs_no_token_here_is_not_used(changes: dict[str, Any]) -> None:
    assert usable(row("EdDSA")) is not None
    assert usable({name: value for name, value in row("EdDSA", **changes).items() if value is not None}) is None


def test_a_short_rsa_key_and_what_is_no_key_are_not_used() -> None:
    short = rsa.generate_private_key(65_537, 1_024).public_key()  # noqa: S505 - it must be refused
    assert usable({**json.loads(RSAAlgorithm.to_jwk(short)), "kid": "short"}) is None
    rows: list[object] = [None, [], "x", {}, {"kty": "RSA"}]
    assert [usable(one) for one in rows] == [None] * 5


async def test_a_new_key_is_read_once_and_a_removed_one_is_refused_after_the_next_read(
    http: httpx.AsyncClient, provider: Provider, clock: FakeClock
) -> None:
    assert await status(http, token("ES256")) == 200
    provider.keys = [row("RS256")]
    assert await status(http, token("ES256")) == 200, "known keys are not read for each token"
    clock.time += FRESH
    assert await status(http, token("ES256")) == 401
    assert await status(http, token("RS256")) == 200
    provider.keys.append(row("ES256"))
    reads = len(provider.reads)
    for _ in range(5):
        assert await status(http, token("ES256")) == 401, "unknown keys cost one read in a while"
    assert len(provider.reads) == reads
    clock.time += PAUSE
    assert await status(http, token("ES256")) == 200


async def test_while_the_provider_is_away_its_last_keys_count_for_a_day(
    http: httpx.AsyncClient, provider: Provider, clock: FakeClock
) -> None:
    assert await status(http, token()) == 200
    provider.away = True
    clock.time += LONGEST - 1
    assert await status(http, token()) == 200
    clock.time += PAUSE
    assert await status(http, token()) == 401
    assert await status(http, create_token(SECRET, "me", 60)) == 200


async def test_before_the_first_keys_a_token_is_neither_refused_nor_accepted(
    http: httpx.AsyncClient, provider: Provider, clock: FakeClock
) -> None:
    provider.away = True
    for _ in range(5):
        assert await status(http, token()) == 503
    assert len(provider.reads) == 1
    provider.away = False
    clock.time += PAUSE
    assert await status(http, token()) == 200


@pytest.mark.parametrize(
    "discovery",
    [{"issuer": "https://evil.example", "jwks_uri": KEYS_AT}, {"issuer": ISSUER}, {"issuer": ISSUER, "jwks_uri": 7},
     {"issuer": ISSUER, "jwks_uri": "http://login.example/keys"}, {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}],
)  # fmt: skip
async def test_a_discovery_document_of_another_issuer_gives_no_key(
    http: httpx.AsyncClient, provider: Provider, discovery: dict[str, Any]
) -> None:
    provider.discovery = discovery
    assert await status(http, token()) == 503
    assert len(provider.reads) == 1


def test_keys_are_read_with_tls_or_on_this_machine() -> None:
    assert is_safe("https://login.example/keys")
    assert is_safe("http://127.0.0.1:8081/keys")
    for url in (
        "http://login.example/keys",
        "https://user@login.example/",
        "ftp://login.example",
        "https://",
        "//x",
        "https://[x",
    ):
        assert not is_safe(url), url


async def test_a_provider_that_answers_too_much_or_elsewhere_gives_no_document() -> None:
    assert MOST < 1_000_000
    with pytest.raises(Transient):
        await read_document("http://127.0.0.1:1/keys")


def test_the_settings_of_a_provider_need_tls_and_the_secret_of_sessions() -> None:
    for env in ({"OIDC_ISSUER": ISSUER}, {"OIDC_ISSUER": "http://login.example", "JWT_SECRET": SECRET},
                {"OIDC_ISSUER": "https://u@login.example", "JWT_SECRET": SECRET}):  # fmt: skip
        with pytest.raises(SettingsError, match="OIDC_ISSUER"):
            Settings.load(env)
    assert Settings.load({"OIDC_ISSUER": ISSUER, "JWT_SECRET": SECRET}).oidc_audience == "backhaul"


async def test_a_provider_can_bound_the_clients_of_a_token(http: httpx.AsyncClient, services: FakeServices) -> None:
    text = token(clients="site=berlin", scope="uploads:write")
    answer = await http.post("/trigger-download/restaurant-1", headers={"Authorization": f"Bearer {text}"})
    assert answer.status_code == 200
    (who,) = services.principals
    assert who.scopes == frozenset({Scope.UPLOADS_WRITE})
    assert (who.subject, who.clients, who.token_id) == ("oidc:ana", "site=berlin", "t-1")


async def test_a_provider_names_no_caller_of_the_secret_and_the_secret_none_of_the_provider(
    http: httpx.AsyncClient, services: FakeServices
) -> None:
    """The same name is two callers: one does not approve, or change, what is the other's."""
    for text in (token(scope="uploads:write"), create_token(SECRET, "ana", DAY)):
        answer = await http.post("/trigger-download/restaurant-1", headers={"Authorization": f"Bearer {text}"})
        assert answer.status_code == 200
    assert [who.subject for who in services.principals] == ["oidc:ana", "ana"]
    with pytest.raises(ValueError, match="OIDC_ISSUER"):
        create_token(SECRET, "oidc:ana", DAY)
    now = int(time.time())
    forged = jwt.encode(
        {"sub": "oidc:ana", "aud": "backhaul", "iat": now, "exp": now + 60}, SECRET, "HS256", {"typ": "JWT"}
    )
    answer = await http.post("/trigger-download/restaurant-1", headers={"Authorization": f"Bearer {forged}"})
    assert (answer.status_code, "OIDC_ISSUER" in answer.text) == (401, True)
