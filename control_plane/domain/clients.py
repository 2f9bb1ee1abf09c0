"""A client and its presence, by compare-and-set on `(epoch, sequence)`.

An operator may expect a client before its agent ever connects; its first presence fills in the rest.

Rule: a late will never overwrites a newer birth; presence of a retired install id is dropped (protocol.md section 2).
A presence that the broker had stored never shows that a client is connected longer than its age allows.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from control_plane.domain.reasons import Reason, ReasonCode
from schemas.messages import PROTOCOL, AgentInfo, Presence
from schemas.values import DeviceBudget

CONNECTED_FOR: Final = 90.0
"""Seconds after its last presence, by the receiver's clock, for which an online client counts as connected."""

CONFLICT_FOR: Final = 600.0
"""Seconds without dispatch after two devices were seen under one client id."""

OPERATOR_RULE: Final = "commands_need operator"
"""The rule of a device's policy, as presence names it."""

MAX_RETIRED: Final = 16
"""Retired install ids that are kept per client, the newest."""


_CONFLICT: Final = (
    "two devices share this client id, or the state of the device went back to an older copy: "
    "give a second device another client id; then delete the client, and it registers again with its next presence"
)


class Verdict(StrEnum):
    """The effect of a presence message."""

    BIRTH = "birth"
    BEAT = "beat"
    OFFLINE = "offline"
    STALE = "stale"
    RETIRED = "retired"
    CONFLICT = "conflict"
    STRANGER = "stranger"


class ClientState(StrEnum):
    """Where a client is, as one value."""

    CONNECTED = "connected"
    OFFLINE = "offline"
    NEVER_SEEN = "never_seen"


class Client(Struct, frozen=True, kw_only=True):
    """A device as its presence describes it, and what an operator wrote beside that.

    Instants are seconds since the epoch, by the control plane's clock: `seen_at`, when the last presence applied was
    published, `connected_at` of the last birth, `registered_at` of the first, `conflict_at` of the last conflict.
    `retired` are the install ids that this one replaced, oldest first. `default_file` is a path on the device.
    `timezone` is an IANA name, `roots` are the folders that the device allows, `types` the file types that it knows.

    `budget` is what the device may still send by its own settings, None for an agent that reports none; it is the same
    since `budget_at`. `labels` are the device's, `set_labels` the operator's. `expected`: an operator named the client,
    with a `note`.

    `session` is what a signed command must name, None for an agent that obeys unsigned ones; `keys_version` is that of
    the list of keys that it obeys, and `unverified` counts what it received and did not obey since its start.
    """

    client_id: str
    install_id: str = ""
    epoch: int = 0
    sequence: int = 0
    online: bool = False
    seen_at: float = 0.0
    connected_at: float | None = None
    registered_at: float = 0.0
    retired: tuple[str, ...] = ()
    conflict_at: float | None = None
    agent: AgentInfo = field(default_factory=AgentInfo)
    labels: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    default_file: str | None = None
    timezone: str | None = None
    roots: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    budget: DeviceBudget | None = None
    budget_at: float | None = None
    session: str | None = None
    keys_version: int | None = None
    unverified: int = 0
    set_labels: Mapping[str, str] = field(default_factory=dict)
    expected: bool = False
    note: str = ""

    @property
    def never_seen(self) -> bool:
        """Whether no presence of the client was ever applied."""
        return not self.install_id

    @property
    def budget_as_of(self) -> float | None:
        """The instant (s) of the last presence that reported `budget`; None without one.

        Of a client that went offline it is that of the last change: a will reports none.
        """
        if self.budget is None or self.budget_at is None:
            return None
        return max(self.budget_at, self.seen_at) if self.online else self.budget_at

    @property
    def effective_labels(self) -> dict[str, str]:
        """The labels that selectors and lists see: the operator's win over the device's."""
        return {**self.labels, **self.set_labels}

    @property
    def needs_operator(self) -> bool:
        """Whether the device takes new work only from an operator who signs it."""
        return OPERATOR_RULE in self.agent.policy

    def state(self, now: float) -> ClientState:
        """Where the client is at `now` (s)."""
        if self.never_seen:
            return ClientState.NEVER_SEEN
        return ClientState.CONNECTED if self.connected(now) else ClientState.OFFLINE

    def connected(self, now: float) -> bool:
        """Whether commands reach the client at `now` (s): its last presence is `online` and recent enough.

        One that lies as far ahead was written by a clock that was wrong: the next beat replaces it.
        """
        return self.online and abs(now - self.seen_at) < CONNECTED_FOR

    @property
    def supported(self) -> bool:
        """Whether agent and control plane have a protocol version in common."""
        return PROTOCOL in self.agent.protocol

    def in_conflict(self, now: float) -> bool:
        """Whether two states of one device id were seen in the last CONFLICT_FOR seconds."""
        return self.conflict_at is not None and abs(now - self.conflict_at) < CONFLICT_FOR

    def answerable(self, now: float) -> bool:
        """Whether a response may be answered at `now` (s): the response itself shows that the client is connected."""
        return self.supported and not self.in_conflict(now)

    def dispatchable(self, now: float) -> bool:
        """Whether a command may be published to the client at `now` (s)."""
        return self.connected(now) and self.answerable(now)

    def waiting_for(self, now: float) -> Reason | None:
        """Why no command is published to the client at `now` (s); None when one may be."""
        if self.in_conflict(now):
            # Before the others: a device whose state went back is never connected, and only an operator can help it.
            return Reason(ReasonCode.CLIENT_CONFLICT, _CONFLICT)
        if self.never_seen:
            return Reason(ReasonCode.CLIENT_NEVER_SEEN, "no agent has connected under this client id yet")
        if not self.connected(now):
            return Reason(ReasonCode.CLIENT_OFFLINE, "the client is offline")
        if not self.supported:
            text = f"the agent speaks protocol {list(self.agent.protocol)}, this control plane {PROTOCOL}"
            return Reason(ReasonCode.CLIENT_UNSUPPORTED, text)
        return None


def apply_presence(
    client: Client | None, presence: Presence, now: float, *, age: float = 0.0
) -> tuple[Client | None, Verdict]:
    """The client after `presence` was received at `now` (s), and the verdict on the message.

    `age` (s) is how long the broker had stored it: 0 for one that was published just now. The same object comes back
    when the message is dropped.
    """
    if client is not None and presence.install_id == client.install_id:
        return _of_this_install(client, presence, now, age)
    online = presence.status == "online"
    if client is not None and presence.install_id in client.retired:
        alive = online and not age
        return (replace(client, conflict_at=now), Verdict.CONFLICT) if alive else (client, Verdict.RETIRED)
    return (_of_birth(client, presence, now - age), Verdict.BIRTH) if online else (client, Verdict.STRANGER)


def _of_this_install(client: Client, presence: Presence, now: float, age: float) -> tuple[Client, Verdict]:
    if (presence.epoch, presence.sequence) <= (client.epoch, client.sequence):
        if _went_back(client, presence, now) and not age:
            return replace(client, conflict_at=now), Verdict.CONFLICT
        return client, Verdict.STALE
    published_at = now - age
    if client.seen_at < now + CONNECTED_FOR:
        # A later instant was written by a clock that was wrong.
        published_at = max(client.seen_at, published_at)
    if presence.status != "online":
        gone = replace(client, epoch=presence.epoch, sequence=presence.sequence, online=False, seen_at=published_at)
        return gone, Verdict.OFFLINE
    if presence.epoch > client.epoch:
        return _of_birth(client, presence, published_at), Verdict.BIRTH
    # After the will of this connection a beat is stale: the will carries the highest sequence.
    beaten = replace(client, sequence=presence.sequence, seen_at=published_at)
    return _described(beaten, presence, client), Verdict.BEAT


def _went_back(client: Client, presence: Presence, now: float) -> bool:
    """Whether a presence with an earlier pair is from another state than the client's, and not only late.

    A late one arrives soon after the birth that overtook it.
    """
    late = abs(now - (client.connected_at or client.registered_at)) < CONNECTED_FOR
    return presence.status == "online" and presence.epoch < client.epoch and not late


def _described(client: Client, presence: Presence, before: Client | None) -> Client:
    """The client as its presence describes it. An unchanged budget keeps its instant: a beat alone writes no row."""
    same = before is not None and before.budget == presence.budget
    budget_at = before.budget_at if before is not None and same else client.seen_at
    return replace(
        client,
        agent=presence.agent,
        labels=presence.labels,
        capabilities=presence.capabilities,
        default_file=presence.default_file,
        timezone=presence.timezone,
        roots=presence.roots,
        types=presence.types,
        session=presence.session,
        keys_version=presence.keys_version,
        unverified=presence.unverified,
        budget=presence.budget,
        budget_at=None if presence.budget is None else budget_at,
    )


def _of_birth(client: Client | None, presence: Presence, now: float) -> Client:
    """The client after the first presence of a connection. A new install id retires the previous one for good."""
    fresh = Client(
        client_id=presence.client_id,
        install_id=presence.install_id,
        epoch=presence.epoch,
        sequence=presence.sequence,
        online=True,
        seen_at=now,
        connected_at=now,
        registered_at=now if client is None or client.never_seen else client.registered_at,
    )
    if client is not None:
        left = () if client.install_id in ("", presence.install_id) else (client.install_id,)
        fresh = replace(
            fresh,
            retired=(*client.retired, *left)[-MAX_RETIRED:],
            conflict_at=client.conflict_at,
            set_labels=client.set_labels,
            expected=client.expected,
            note=client.note,
        )
    return _described(fresh, presence, client)
