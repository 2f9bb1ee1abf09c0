"""The words of the domain: states, origins, proofs, and the identity of an upload.

Rule: every instant is seconds since the epoch (UTC), every size bytes.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from schemas.values import Outcome

MAX_ATTEMPTS: Final = 3
"""How often an upload may begin anew with a fresh S3 upload id (protocol.md section 4)."""

MAX_STRIKES: Final = 3
"""How many step timers in a row may run out before a connected client is given up."""


class State(StrEnum):
    """Where an upload stands (protocol.md section 5)."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    IN_PROGRESS = "in_progress"
    COMPLETING = "completing"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.REJECTED, State.CANCELLED, State.EXPIRED})
OPEN: Final = frozenset(State) - TERMINAL
EXPIRABLE: Final = OPEN - {State.COMPLETING}
"""States that a deadline ends; one that is completing is settled first."""

OUTCOMES: Final[dict[State, Outcome]] = {state: Outcome(state.value) for state in TERMINAL}


class Origin(StrEnum):
    """Who asked for the upload: a caller of ours, or somebody who published the command himself."""

    REST = "rest"
    MQTT = "mqtt"


class Proof(StrEnum):
    """The strongest ground on which an object is believed to be the file (protocol.md section 5)."""

    CHECKSUM = "checksum"
    ETAG = "etag"
    ACCEPTED = "accepted"
    SIZE = "size"


class Refusal(StrEnum):
    """Why the control plane itself ended an upload; beside the device's error codes in REST's `error`."""

    NOT_PROVEN = "not_proven"
    STORE_REFUSED = "store_refused"
    DEADLINE_PASSED = "deadline_passed"
    NO_PROGRESS = "no_progress"


class UploadKey(NamedTuple):
    """An upload's identity: ids are unique per client."""

    client_id: str
    upload_id: str


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What is known of one part: the digest its client offered, and the etag once it is stored.

    An empty etag means that the store said 412: an earlier request of ours may have won.
    """

    digest: str | None = None
    etag: str | None = None

    @property
    def stored(self) -> bool:
        """Whether the client reported this part as stored."""
        return self.etag is not None
