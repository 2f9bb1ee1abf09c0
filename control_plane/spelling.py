"""Slips in the names of settings: found before they are passed over in silence.

Rule: a file is written for us, so every name in it must be known; the environment belongs to every program, so only a
name that is nearly one of ours is taken for a slip.
"""

import difflib
from collections.abc import Collection, Mapping
from typing import Final

CLOSE: Final = 0.66
"""Two letters of three: `ULR` is close to `URL`."""

# Read by the tools around us, and near enough to a name of ours to be taken for it.
_INNOCENT: Final = frozenset({"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SECURITY_TOKEN", "S3_ENDPOINT"})

# One `.env` serves a whole checkout: the names of the agent, the command line and compose are no mistake in it.
_AGENT: Final = frozenset(
    {
        "CLIENT_ID",
        "FILE_PATH",
        "ALLOWED_ROOTS",
        "UPLOAD_HOSTS",
        "STATE_DIR",
        "LABELS",
        "MAX_PARALLEL_PARTS",
        "MAX_BYTES_PER_SECOND",
    }
)
_TOOLS: Final = ("BACKHAUL_", "COMPOSE_", "DOCKER_")


def unknown(written: Collection[str], known: Collection[str]) -> list[str]:
    """One line for each name of a file that nobody reads."""
    strangers = [name for name in written if name not in known and name not in _AGENT and not name.startswith(_TOOLS)]
    return [_line(name, difflib.get_close_matches(name.upper(), known, n=1)) for name in strangers]


def misspelt(given: Mapping[str, str], known: Collection[str]) -> list[str]:
    """One line for each name of the environment that looks like a slip for a setting that is not given.

    Only what follows the prefix is compared: by the whole, `MQTT_USER` is nearer to `MQTT_URL` than to `MQTT_USERNAME`.
    """
    lines = []
    for name in sorted(set(given) - {*known, *_AGENT, *_INNOCENT}):
        family, _, rest = name.partition("_")
        kin = [ours.removeprefix(f"{family}_") for ours in known if ours.startswith(f"{family}_")]
        near = [f"{family}_{ours}" for ours in difflib.get_close_matches(rest, kin, n=1, cutoff=CLOSE)]
        lines += [_line(name, [ours]) for ours in near if not given.get(ours)]
    return lines


def _line(name: str, near: list[str]) -> str:
    return f"{name} is not a setting" + (f": did you mean {near[0]}?" if near else "")
