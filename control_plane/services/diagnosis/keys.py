"""The findings about the keys that the fleet obeys.

Rule: as in `services.diagnosis.findings`. A fleet without keys is no fault.
"""

from typing import Final

from control_plane.services.diagnosis.findings import Finding
from control_plane.services.ports.database import Database
from control_plane.services.trust.expiry import warnings_of
from schemas.errors import SchemaError
from schemas.signing.trust import Trust, advance, decode_trust, trust_first

KEYS: Final = "keys"
RENEW: Final = (
    "a key: list it again with `backhaul keys add`, or take it out with `backhaul keys revoke`; the list: "
    "`backhaul keys sign --list-life TIME`; then `backhaul keys publish`"
)


def judged(trust: Trust | None, now: float, own: str | None = None) -> list[Finding]:
    """About these published keys at `now` (s since the epoch); `own` as for `warnings_of`."""
    if trust is None or trust.keys is None:
        return [Finding(KEYS, fine=True, text="no keys are published: devices obey unsigned commands")]
    if found := warnings_of(trust, now, own):
        return [Finding(KEYS, fine=False, text=text, remedy=RENEW) for text in found]
    return [Finding(KEYS, fine=True, text=f"version {trust.keys.version} is published, and nothing in it expires soon")]


async def examine_keys(database: Database, topic: str, now: float) -> list[Finding]:
    """About what is stored; `topic` is that of the keys. `DatabaseUnavailable`."""
    stored = await database.read(lambda records: records.trust.get())
    if stored is None:
        return judged(None, now)
    try:
        published = decode_trust(stored.document.encode())
        return judged(advance(trust_first(published.roots[0], topic), published), now)
    except SchemaError as error:
        remedy = "publish the list again with `backhaul keys publish`, from the folder of the root"
        return [Finding(KEYS, fine=False, text=f"what is stored is not trusted: {error}", remedy=remedy)]
