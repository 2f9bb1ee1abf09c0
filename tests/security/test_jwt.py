"""Tokens: only a valid HS256 token for this audience is accepted, and the refusal shows nothing of the secret."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi.routing import APIRoute

from control_plane.api.app import ROUTERS
from control_plane.api.auth import (
    AUDIENCE,
    LEEWAY,
    OF_DEVICES,
    OPEN,
    OPEN_BELOW,
    SESSION_PATH,
    create_token,
    secret_id,
)
from control_plane.domain.access import ALL
from tests.support.fake_services import SECRET, FakeServices, http_to, make_api

OTHER: Final = "another secret of thirty-two bytes, at least"
DAY: Final = 86_400
PATHS: Final = (
    ("POST", "/trigger-download/restaurant-1"),
    ("GET", "/status/restaurant-1"),
    ("GET", "/clients"),
    ("GET", "/clients/restaurant-1"),
    ("DELETE", "/clients/restaurant-1"),
    ("GET", "/clients/restaurant-1/files?pattern=*"),
    ("GET", "/uploads"),
    ("GET", "/uploads/upload-1"),
    ("POST", "/uploads/upload-1/cancel"),
    ("POST", "/uploads/upload-1/retry"),
    ("GET", "/uploads/upload-1/url"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
    ("POST", "/health"),
    ("GET", "/health/"),
    ("GET", "http://127.0.0.1:8080//health"),
    ("GET", "/health%2f..%2fclients"),
)


def claims(**changes: object) -> dict[str, Any]:
    """The claims of a good token with changes; None removes a claim."""
    now = int(time.time())
    merged: dict[str, Any] = {"sub": "me", "aud": AUDIENCE, "iat": now, "exp": now + DAY, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(header: Mapping[str, Any] | str, payload: Mapping[str, Any] | str, key: bytes = SECRET.encode()) -> str:
    """A token with any header and payload, signed with HMAC-SHA256 in every case."""
    head, body = (part if isinstance(part, str) else json.dumps(part) for part in (header, payload))
    signed = f"{b64(head.encode())}.{b64(body.encode())}"
    return f"{signed}.{b64(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def rsa_pair() -> tuple[bytes, bytes]:
    """A private and a public key, as PEM."""
    private = rsa.generate_private_key(65_537, 2048)
    return (
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    )


def bad_tokens() -> Iterator[tuple[str, str]]:
    """(why, token)."""
    good = forge({"alg": "HS256"}, claims())
    head, body, signature = good.split(".")
    private, public = rsa_pair()
    now = int(time.time())
    for alg in ("none", "None", "NONE", "nOnE"):
        unsigned = f"{b64(json.dumps({'alg': alg, 'typ': 'JWT'}).encode())}.{body}."
        yield f"alg {alg}", unsigned
        yield f"alg {alg} with a signature", unsigned + signature
    yield "no signature", f"{head}.{body}."
    yield "another's signature", f"{head}.{b64(json.dumps(claims(sub='root')).encode())}.{signature}"
    yield "another key", forge({"alg": "HS256"}, claims(), OTHER.encode())
    yield "an empty key", forge({"alg": "HS256"}, claims(), b"")
    yield "HS384", jwt.encode(claims(), SECRET * 2, algorithm="HS384")
    yield "HS512", jwt.encode(claims(), SECRET * 2, algorithm="HS512")
    yield "HS256 labelled as HS512", forge({"alg": "HS512"}, claims())
    yield "RS256", jwt.encode(claims(), private, algorithm="RS256")
    yield "HS256 with an RSA public key", forge({"alg": "HS256"}, claims(), public)
    yield "an HMAC labelled as RS256", forge({"alg": "RS256"}, claims())
    yield "no alg", forge({"typ": "JWT"}, claims())
    yield "a list of algs", forge({"alg": ["HS256"]}, claims())
    yield "a critical extension", forge({"alg": "HS256", "crit": ["x"], "x": 1}, claims())
    yield "a detached payload", forge({"alg": "HS256", "b64": False, "crit": ["b64"]}, claims())
    yield "expired", forge({"alg": "HS256"}, claims(exp=now - LEEWAY - 1))
    yield "not yet", forge({"alg": "HS256"}, claims(nbf=now + DAY))
    yield "issued tomorrow", forge({"alg": "HS256"}, claims(iat=now + DAY))
    yield "a life that is too long", forge({"alg": "HS256"}, claims(iat=now, exp=now + DAY + 1))
    yield "a long life in texts", forge({"alg": "HS256"}, claims(iat=str(now), exp=str(now + DAY + 1)))
    yield "issued long ago", forge({"alg": "HS256"}, claims(iat=now - DAY, exp=now + DAY))
    for name in ("exp", "iat", "sub", "aud"):
        yield f"no {name}", forge({"alg": "HS256"}, claims(**{name: None}))
        yield f"null {name}", forge({"alg": "HS256"}, {**claims(), name: None})
    for aud in ("", "Backhaul", "backhaul2", "other", ["backhaul"], ["other", "backhaul"], [], {"backhaul": 1}, 7):
        yield f"aud {aud!r}", forge({"alg": "HS256"}, claims(aud=aud))
    wrong: tuple[object, ...] = ("soon", "99999999999x", [], {}, True)
    for exp in wrong:
        yield f"exp {exp!r}", forge({"alg": "HS256"}, claims(exp=exp))
    for sub in ("", 7, ["me"], {"me": 1}, "x" * 129, "a\nb", "a\x1b[2J"):
        yield f"sub {sub!r:.20}", forge({"alg": "HS256"}, claims(sub=sub))
    for number in ("1e999", "-1e999", "NaN", "-1"):
        yield (
            f"exp {number:.9}",
            forge({"alg": "HS256"}, json.dumps(claims(exp=0)).replace('"exp": 0', f'"exp": {number}')),
        )
    yield "a payload that nests", forge({"alg": "HS256"}, "[" * 1500 + "]" * 1500)
    yield "a header that nests", forge('{"alg":"HS256","x":' + "[" * 1200 + "]" * 1200 + "}", claims())
    yield "a payload that is no object", forge({"alg": "HS256"}, "[]")
    yield "a payload that is no JSON", forge({"alg": "HS256"}, "{")
    yield "huge", forge({"alg": "HS256"}, claims(more="x" * 5000))
    yield "not base64", f"{head}.{body}.***"
    yield "two parts", f"{head}.{body}"
    yield "four parts", f"{good}.x"
    yield "five parts", "a.b.c.d.e"
    yield "dots", ".."
    yield "one letter", "x"


def tokens_of_no_secret() -> Iterator[str]:
    """Tokens whose header names a secret that the server does not have, or another than the one that signed."""
    for kid in (
        "",
        "x",
        secret_id(SECRET)[:-1],
        f"{secret_id(SECRET)}A",
        secret_id(OTHER),
        "../../dev/null",
        "' OR 1=1",
    ):
        yield forge({"alg": "HS256", "kid": kid}, claims())
        yield forge({"alg": "HS256", "kid": kid}, claims(), b"")
    for odd in (None, 7, True, [secret_id(SECRET)], {"kid": secret_id(SECRET)}):
        yield forge({"alg": "HS256", "kid": odd}, claims())
    yield create_token(OTHER, "me", 60)
    yield forge({"alg": "HS256", "kid": secret_id("")}, claims(), b"")
    yield forge({"alg": "HS256", "kid": secret_id(SECRET)}, claims(), OTHER.encode())
    yield forge({"alg": "HS256", "jwk": {"kty": "oct", "k": b64(OTHER.encode())}}, claims(), OTHER.encode())


BAD: Final = dict(bad_tokens())


@pytest.fixture
def services() -> FakeServices:
    return FakeServices()


@pytest.fixture
async def http(services: FakeServices) -> AsyncIterator[httpx.AsyncClient]:
    async with http_to(make_api(services, JWT_SECRET=SECRET)) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def check_refused(answer: httpx.Response) -> None:
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["title"] == "A bearer token is needed"


@pytest.mark.parametrize("why", BAD)
async def test_a_bad_token_is_refused(http: httpx.AsyncClient, services: FakeServices, why: str) -> None:
    answer = await http.get("/clients", headers=bearer(BAD[why]))
    check_refused(answer)
    assert services.calls == []
    assert SECRET not in answer.text
    assert BAD[why] not in answer.text or len(BAD[why]) < 3


async def test_a_token_that_names_a_secret_of_nobody_is_refused(
    http: httpx.AsyncClient, services: FakeServices
) -> None:
    for token in tokens_of_no_secret():
        answer = await http.get("/clients", headers=bearer(token))
        check_refused(answer)
        assert SECRET not in answer.text
    assert services.calls == []


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_every_path_needs_a_token(
    http: httpx.AsyncClient, services: FakeServices, method: str, path: str
) -> None:
    check_refused(await http.request(method, path))
    assert services.calls == []


async def test_every_route_needs_a_token(http: httpx.AsyncClient, services: FakeServices) -> None:
    """Each one that there is: those that are added later too."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    opened = {*OPEN, *OF_DEVICES, SESSION_PATH}
    known = [route for route in routes if route.path not in opened and not route.path.startswith(OPEN_BELOW)]
    closed = [(method, route.path) for route in known for method in route.methods or ()]
    assert len(closed) > 50
    for method, path in closed:
        check_refused(await http.request(method, path))
    assert services.calls == []


@pytest.mark.parametrize("path", ["/health", "/", "/docs", "/static/main.js"])
async def test_only_what_shows_no_client_needs_no_token(
    http: httpx.AsyncClient, services: FakeServices, path: str
) -> None:
    assert (await http.get(path)).status_code == 200
    assert (await http.get(path, headers=bearer("x"))).status_code == 200
    assert (await http.post(path)).status_code == 401
    assert services.calls == []


@pytest.mark.parametrize(("method", "path"), [pair for pair in PATHS if "health" not in pair[1]])
async def test_a_good_token_is_accepted_on_every_path(http: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, path, headers=bearer(create_token(SECRET, "me", 60)))
    assert answer.status_code == (404 if path == "/nowhere" else 204 if method == "DELETE" else 200)


async def test_the_subject_is_the_caller(http: httpx.AsyncClient, services: FakeServices) -> None:
    token = create_token(SECRET, "till@berlin", 60)
    await http.post("/trigger-download/restaurant-1", headers=bearer(token))
    assert [(one.subject, one.scopes, one.clients) for one in services.principals] == [("till@berlin", ALL, None)]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_read_in_any_case(http: httpx.AsyncClient, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {create_token(SECRET, 'me', 60)}"}
    assert (await http.get("/clients", headers=headers)).status_code == 200


async def test_two_headers_are_refused_even_when_one_is_good(http: httpx.AsyncClient) -> None:
    good = f"Bearer {create_token(SECRET, 'me', 60)}"
    for pair in ([good, good], [good, "Bearer x"], ["Bearer x", good]):
        check_refused(await http.get("/clients", headers=[("Authorization", value) for value in pair]))


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic bWU6cHc=", "Token x", "x"])
async def test_a_header_without_a_bearer_token_is_refused(http: httpx.AsyncClient, value: str) -> None:
    check_refused(await http.get("/clients", headers={"Authorization": value}))


async def test_a_token_in_a_query_or_a_cookie_is_ignored(http: httpx.AsyncClient) -> None:
    token = create_token(SECRET, "me", 60)
    check_refused(await http.get(f"/clients?access_token={token}&token={token}"))
    check_refused(await http.get("/clients", headers={"Cookie": f"token={token}; Authorization=Bearer {token}"}))


async def test_clocks_may_differ_by_the_leeway(http: httpx.AsyncClient) -> None:
    now = int(time.time())
    near = forge({"alg": "HS256"}, claims(exp=now - LEEWAY + 10, iat=now + LEEWAY - 10, nbf=now + LEEWAY - 10))
    assert (await http.get("/clients", headers=bearer(near))).status_code == 200
    assert LEEWAY <= 30


async def test_an_expired_token_is_refused_with_that_detail(http: httpx.AsyncClient) -> None:
    answer = await http.get("/clients", headers=bearer(BAD["expired"]))
    assert answer.json()["detail"] == "the token has expired"


def test_a_token_has_subject_audience_and_lifetime() -> None:
    token = create_token(SECRET, "me", 3600)
    decoded = jwt.decode(token, SECRET, ["HS256"], audience=AUDIENCE)
    assert (decoded["sub"], decoded["aud"], decoded["exp"] - decoded["iat"]) == ("me", "backhaul", 3600)
    assert jwt.get_unverified_header(token)["alg"] == "HS256"


async def test_a_token_that_lives_too_long_is_refused_with_the_settings_name(services: FakeServices) -> None:
    """A token cannot be revoked, so what is stolen is good until its end: the longest life is the control plane's."""
    token = create_token(SECRET, "me", 2 * DAY)
    async with http_to(make_api(services, JWT_SECRET=SECRET)) as http:
        answer = await http.get("/clients", headers=bearer(token))
    check_refused(answer)
    assert "86400 s of MAX_TOKEN_LIFETIME" in answer.json()["detail"]
    async with http_to(make_api(services, JWT_SECRET=SECRET, MAX_TOKEN_LIFETIME=str(2 * DAY))) as http:
        assert (await http.get("/clients", headers=bearer(token))).status_code == 200


@pytest.fixture
async def rotated(services: FakeServices) -> AsyncIterator[httpx.AsyncClient]:
    """A server whose secret was replaced."""
    async with http_to(make_api(services, JWT_SECRET=SECRET, JWT_SECRET_PREVIOUS=OTHER)) as client:
        yield client


async def test_a_token_of_the_previous_secret_is_accepted_while_the_server_has_it(rotated: httpx.AsyncClient) -> None:
    for secret in (SECRET, OTHER):
        assert (await rotated.get("/clients", headers=bearer(create_token(secret, "me", 60)))).status_code == 200


async def test_a_token_that_names_no_secret_is_one_of_the_present_secret(rotated: httpx.AsyncClient) -> None:
    unnamed = {secret: forge({"alg": "HS256"}, claims(), secret.encode()) for secret in (SECRET, OTHER)}
    assert (await rotated.get("/clients", headers=bearer(unnamed[SECRET]))).status_code == 200
    check_refused(await rotated.get("/clients", headers=bearer(unnamed[OTHER])))


async def test_the_secret_that_a_token_names_is_the_only_one_that_verifies_it(rotated: httpx.AsyncClient) -> None:
    third = "x" * 32
    pairs = [(SECRET, OTHER), (OTHER, SECRET), (OTHER, third), (third, third), (third, OTHER)]
    for named, signed in pairs:
        token = forge({"alg": "HS256", "kid": secret_id(named)}, claims(), signed.encode())
        check_refused(await rotated.get("/clients", headers=bearer(token)))


def test_the_name_of_a_secret_is_made_with_it_and_for_nothing_else() -> None:
    """A plain digest could be looked up; one that signed something else could be asked for."""
    expected = b64(hmac.digest(SECRET.encode(), b"backhaul-token-kid-v1", "sha256")[:8])
    assert jwt.get_unverified_header(create_token(SECRET, "me", 60))["kid"] == secret_id(SECRET) == expected
    assert len({secret_id(SECRET), secret_id(OTHER), b64(hashlib.sha256(SECRET.encode()).digest()[:8])}) == 3
