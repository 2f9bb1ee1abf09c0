"""The names of all settings (protocol.md section 7), and slips in them: found before they are passed over in silence.

Rule: a file is written for us, so every name in it must be known; the environment belongs to every program, so only a
name that is nearly one of ours is taken for a slip.
"""

from collections.abc import Collection, Mapping
from typing import Final

_CONTROL_PLANE: Final = """
    SERVER_HOST SERVER_PORT MQTT_URL MQTT_USERNAME MQTT_PASSWORD DATABASE_URL AWS_REGION AWS_ACCESS_KEY_ID
    AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_ENDPOINT S3_PUBLIC_ENDPOINT S3_BUCKET_NAME S3_CHUNK_SIZE S3_DIGEST
    BASE_S3_PATH PRESIGNED_URL_EXPIRY CLIENT_TIMEOUT JWT_SECRET AUTH REQUIRE_PROOF HISTORY_DAYS TOPIC_ROOT
    LOG_LEVEL
"""
_AGENT: Final = """
    CLIENT_ID MQTT_URL MQTT_USERNAME MQTT_PASSWORD FILE_PATH ALLOWED_ROOTS UPLOAD_HOSTS STATE_DIR LABELS
    MAX_PARALLEL_PARTS MAX_BYTES_PER_SECOND LOG_LEVEL TOPIC_ROOT
"""
CONTROL_PLANE: Final = frozenset(_CONTROL_PLANE.split())
AGENT: Final = frozenset(_AGENT.split())
# One `.env` serves a whole checkout: the names of the other side, the command line and compose are no mistake in it.
_OURS: Final = CONTROL_PLANE | AGENT
_TOOLS: Final = ("BACKHAUL_", "COMPOSE_", "DOCKER_")

# Read by the tools around us, and near enough to a name of ours to be taken for it.
_INNOCENT: Final = frozenset({"ALLOWED_HOSTS", "AWS_SECURITY_TOKEN", "LOGLEVEL", "S3_ENDPOINT", "STATE_DIRECTORY"})
_INNOCENT_KIN: Final = "AWS_ENDPOINT_URL"
"""Alone, and with the name of any service behind it ("Service-specific endpoints", AWS SDKs reference guide)."""

_CLOSE: Final = 0.66
"""Two letters of three: `ULR` is close to `URL`."""

_SHORT: Final = 4
_LONG: Final = 10
"""Letters from which on two of them may be wrong."""


def unknown(written: Collection[str], known: Collection[str]) -> list[str]:
    """One line for each name of a file that nobody reads."""
    strangers = [name for name in written if name not in _OURS and not name.startswith(_TOOLS)]
    return [_line(name, _nearest(name.upper(), sorted(known), 0.6)) for name in strangers]


def misspelt(given: Mapping[str, str], known: Collection[str]) -> list[str]:
    """One line for each name of the environment that looks like a slip for one of `known` that is not given."""
    lines = []
    for name in sorted(set(given) - _OURS - _INNOCENT):
        if name.startswith(_INNOCENT_KIN) or _is_service_link(name, given):
            continue
        ours = _in_family(name, known) or _letter_by_letter(name, known)
        if ours and not given.get(ours):
            lines.append(_line(name, ours))
    return lines


def _in_family(name: str, known: Collection[str]) -> str | None:
    """The name with the same first word whose rest is like this one's.

    By the whole, `MQTT_USER` is nearer to `MQTT_URL` than to `MQTT_USERNAME`.
    """
    family, _, rest = name.partition("_")
    kin = sorted(ours.removeprefix(f"{family}_") for ours in known if ours.startswith(f"{family}_"))
    near = _nearest(rest, kin, _CLOSE) if kin else None
    return f"{family}_{near}" if near else None


def _letter_by_letter(name: str, known: Collection[str]) -> str | None:
    """The name that this one is with a letter or two wrong, whichever part they are in."""
    return next((ours for ours in sorted(known) if _is_slip(name, ours)), None)


def _is_slip(name: str, ours: str) -> bool:
    # The first letter is seldom the wrong one, and often what tells other programs' names apart.
    if name[:1] != ours[:1] or abs(len(name) - len(ours)) > 2:  # noqa: PLR2004 (no slip has more wrong letters)
        return False
    wrong = distance(name, ours)
    if len(ours) <= _SHORT:
        # Nearly every word is near to a short one; two letters that changed places are told all the same.
        return wrong == 1 and sorted(name) == sorted(ours)
    return wrong <= (2 if len(ours) >= _LONG else 1)


def _is_service_link(name: str, given: Mapping[str, str]) -> bool:
    """Whether Kubernetes or Docker wrote it, to say where a service is: `SERVERS_PORT` beside `SERVERS_PORT_80_TCP`."""
    return any(other.startswith(f"{name}_") for other in given) and given.get(name, "").startswith(("tcp:", "udp:"))


def _nearest(name: str, known: list[str], cutoff: float) -> str | None:
    # Behind its use: an agent on a small device seldom meets a stranger, and need not hold this in memory.
    import difflib  # noqa: PLC0415

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def _line(name: str, near: str | None) -> str:
    return f"{name} is not a setting" + (f": did you mean {near}?" if near else "")


def distance(one: str, other: str) -> int:
    """How many letters to add, drop, change or swap with the next (optimal string alignment).

    >>> distance("AUHT", "AUTH"), distance("DATABSE_URL", "DATABASE_URL"), distance("", "abc")
    (1, 1, 3)
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        above, row = row, [i]
        for j, wanted in enumerate(other, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before = above
    return row[-1]
