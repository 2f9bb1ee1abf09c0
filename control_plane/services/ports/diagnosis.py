"""What a doctor requests of the neighbours, beside what the services use.

Rule: the answers are facts; `services.diagnosis` judges them. Bytes, seconds; None where a fact is not known.
"""

from dataclasses import dataclass
from typing import Protocol

from control_plane.services.ports.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """A database before it is opened.

    `place` has no credentials. `revision` is that of its schema, None for an empty one; `newest` is this program's, and
    `known` whether this program knows `revision`. `disk_free` is of the disk of a SQLite file. `clock_skew` is the
    server's clock minus this machine's.
    """

    place: str
    product: str
    revision: str | None
    newest: str
    known: bool = True
    disk_free: int | None = None
    size: int | None = None
    clock_skew: float | None = None


class DatabaseExaminer(Protocol):
    """A database that may not have been migrated. `DatabaseUnavailable`, `BadInput`."""

    async def facts(self) -> DatabaseFacts:
        """Read it; neither migrates nor creates it."""

    async def opened(self) -> Database:
        """Create or migrate it, and open it; the caller closes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFacts:
    """What one connection to the broker showed.

    `refused_reads` and `refused_writes` are the channels that the account may not use; `unseen_writes` those whose
    message was acknowledged and did not arrive. `retained_commands` are the topics of commands that the broker has
    stored. `anonymous` is whether it takes a connection without credentials. `max_message` is in bytes of payload.
    """

    address: str
    max_message: int
    receive_maximum: int
    maximum_qos: int
    retains: bool
    encrypted: bool
    refused_reads: tuple[str, ...] = ()
    refused_writes: tuple[str, ...] = ()
    unseen_writes: tuple[str, ...] = ()
    retained_commands: tuple[str, ...] = ()
    anonymous: bool | None = None


class BrokerExaminer(Protocol):
    """The broker, over its own connections. `MessengerDown` when it cannot be reached, or refuses the account."""

    async def facts(self) -> BrokerFacts:
        """Connect, subscribe, publish one empty command for a client that does not exist, and disconnect."""

    async def clear(self, topics: tuple[str, ...]) -> None:
        """Remove what the broker has stored on these topics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketFacts:
    """Who may use the bucket without credentials, and how many rules for pages of other origins (CORS) it has.

    `readable` and `listable` were tried; `policy_is_public` is the object store's own judgement.
    """

    readable: bool | None
    listable: bool | None
    policy_is_public: bool | None
    cors_rules: int | None


class BucketExaminer(Protocol):
    """The bucket, as others see it. `ObjectStoreDown`, `ObjectStoreRefused`."""

    async def exposure(self) -> BucketFacts:
        """Request an object, and the list of objects, without credentials.

        In a bucket without an upload the object is one byte, which is deleted again.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """What the address of REST answers to `GET /`: the status and the headers with lower-case names.

    `status` is None, and `error` a sentence, where nothing answers.
    """

    address: str
    status: int | None
    policy: str | None = None
    missing: tuple[str, ...] = ()
    error: str | None = None


class PageExaminer(Protocol):
    """The page of a control plane that runs with these settings, if one does."""

    async def facts(self) -> PageFacts:
        """Request the page and the files that it names; never raises for an address that does not answer."""
