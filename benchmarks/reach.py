"""REST for a caller that may see a part of a large fleet, beside the same calls without the claim `clients`.

Rule: both kinds of token make the same calls in turn, over connections that stay open, so that both meet the same load.
All is measured several times, minutes apart, and the median of the 95th percentiles counts: a machine that is shared is
slower in some minutes than in others.
"""

import asyncio
import json
import secrets
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.figures import Figure, Report, median, percentile
from benchmarks.rows import SITES, client_id, fill
from benchmarks.site import running_site
from control_plane.api.auth import create_token
from control_plane.domain.access import Principal

LARGEST: Final = 25.0
"""Milliseconds that a call may take at the 95th percentile."""

UNBOUND: Final = ""
REACHES: Final[Mapping[str, str]] = {
    "no reach": UNBOUND,
    "a reach of one site": "site=site-7",
    "a reach of half": "ring=early",
    "a reach of nearly all": "site!=site-8",
}
"""Selectors over the labels of `rows`."""

CALLS: Final[Mapping[str, str]] = {
    "GET /clients": "/clients",
    "GET /uploads": "/uploads",
    "GET /uploads, one state": "/uploads?status=in_progress",
    "GET /jobs": "/jobs",
    "GET /status": f"/status/{client_id(7)}",
    "GET /fleet": "/fleet",
}
_KEPT: Final = 1.1
"""Seconds between two looks at the numbers of the fleet: fewer would find those that were just computed."""

_SLOW: Final = "GET /fleet"
_FIRST: Final = "GET /fleet, first look"
"""Nobody had looked for a while: the caller waits for the computation. Not bounded."""

_LIFETIME: Final = 24 * 3600.0
"""Seconds that a token lives."""

Times = Mapping[tuple[str, str], Sequence[float]]
"""Milliseconds by call and reach."""


def reach(clients: int = 100_000, uploading: int = 2_000, rounds: int = 60, passes: int = 3) -> Report:
    """Lists, one client and the numbers of the fleet, for four callers."""
    secret = secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "control-plane"
        folder.mkdir()
        asyncio.run(fill(f"sqlite:///{folder / 'backhaul.db'}", clients, uploading))
        token = create_token(secret, "benchmark", _LIFETIME)
        with running_site(Path(directory), {"JWT_SECRET": secret}, token) as site:
            first = _first_looks(site.server, secret)
            measured = [_measure(site.server, secret, rounds) for _ in range(passes)]

    def p95(call: str, name: str) -> float:
        found = [first] if call == _FIRST else measured
        return median([percentile(times[call, name], 0.95) for times in found])

    figures = [
        Figure(f"{call}, {name}, {clients:,} clients, p95", p95(call, name), "ms", "ms without", p95(call, "no reach"))
        for call in (*CALLS, _FIRST)
        for name in REACHES
        if REACHES[name]
    ]
    worst = max((figure.value for figure in figures if not figure.name.startswith(_FIRST)), default=0.0)
    figures.append(
        Figure(f"the slowest of these but a first look, {clients:,} clients, p95", worst, "ms", at_most=LARGEST)
    )
    details = {
        "p95_ms of each pass": {
            f"{call}, {name}": [percentile(times[call, name], 0.95) for times in measured] for call, name in measured[0]
        },
        "sites": SITES,
        "uploading": uploading,
    }
    return Report("rest-reach", figures, details)


def _first_looks(server: str, secret: str) -> Times:
    with _connection(server) as connection:
        return {
            (_FIRST, name): [1000 * _call(connection, CALLS[_SLOW], token)] for name, token in _tokens(secret).items()
        }


def _tokens(secret: str) -> Mapping[str, str]:
    return {
        name: create_token(secret, Principal(f"of {name}", clients=text or None), _LIFETIME)
        for name, text in REACHES.items()
    }


def _measure(server: str, secret: str, rounds: int) -> Times:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    with _connection(server) as connection:
        tokens = _tokens(secret)
        for call, path in CALLS.items():
            slow = call == _SLOW
            for _ in range(rounds // 2 if slow else rounds):
                if slow:
                    time.sleep(_KEPT)
                for name, token in tokens.items():
                    found[call, name].append(1000 * _call(connection, path, token))
    return found


@contextmanager
def _connection(server: str) -> Iterator[HTTPConnection]:
    parts = urlsplit(server)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    yield connection
    connection.close()


def _call(connection: HTTPConnection, path: str, token: str) -> float:
    """Seconds of one call, until the last byte."""
    began = time.perf_counter()
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - began
    if answer.status not in {200, 404}:
        message = f"{path} answered {answer.status}: {json.loads(body)}"
        raise RuntimeError(message)
    return took
