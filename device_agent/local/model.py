"""`LocalStatus`: what the running agent shows of itself on its own device.

Rule: a document for people and scripts. Fields are added, never renamed; no field holds a secret or a URL of the object
store. Times are in seconds since 1970, sizes in bytes.
"""

from msgspec import Struct

from device_agent.local.requests import ConsentRequest
from device_agent.trust.mode import UNSIGNED
from schemas.values import DeviceBudget


class BrokerState(Struct, frozen=True, kw_only=True):
    """The connection to the broker at `url`, which has no credentials.

    `since` is when the present state began. `last_contact_at` is when the connection was last in place, None before the
    first time; `last_error` is why the last one ended or failed; `next_try_at` is None while connected.
    """

    url: str
    connected: bool
    since: float
    last_contact_at: float | None = None
    last_error: str | None = None
    next_try_at: float | None = None


class ClockState(Struct, frozen=True, kw_only=True):
    """The clock of this device, and what is wrong with it, a sentence each."""

    now: float
    notes: tuple[str, ...] = ()


class LocalUpload(Struct, frozen=True, kw_only=True):
    """One upload that is not closed; `state` as in `device_agent.transfer.model.State`.

    `size` is None until the file was opened. `reason` is why it waits; None while it makes progress.
    """

    upload_id: str
    path: str | None
    state: str
    bytes_sent: int = 0
    size: int | None = None
    reason: str | None = None


class JournalState(Struct, frozen=True, kw_only=True):
    """The journal in the state folder; `failing` is why the disk does not take it, None while it does."""

    folder: str
    size: int
    failing: str | None = None
    disk_free: int | None = None


class Policy(Struct, frozen=True, kw_only=True):
    """What this device allows, by its own settings."""

    roots: tuple[str, ...] = ()
    file: str | None = None
    types: dict[str, tuple[str, ...]] = {}
    hosts: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    """The rules of the policy beside the settings, a line each."""
    after: tuple[str, ...] = ()
    """What may be done with a file after its upload."""


class SignedState(Struct, frozen=True, kw_only=True):
    """The key of this device, and what it verifies commands with.

    `root` and `keys_version` are the versions of the root of trust and of the list of keys, 0 before the first list.
    `unverified` are the messages since the start that no key of the list may have signed.
    """

    key: str
    fingerprint: str
    root: int
    keys_version: int
    unverified: int


class LocalStatus(Struct, frozen=True, kw_only=True):
    """The agent now. `uploads` are the first ones of `uploads_open`; `trust` is how commands are checked.

    It is `unsigned` or `signed`, and `signed` has more of the second.
    `requests` are the first uploads that wait for a person's consent. `budget` is None without such settings;
    `conditions` are those that hold uploads back, a text each.
    """

    version: str
    client_id: str
    pid: int
    started_at: float
    broker: BrokerState
    clock: ClockState
    journal: JournalState
    policy: Policy
    budget: DeviceBudget | None = None
    conditions: tuple[str, ...] = ()
    trust: str = UNSIGNED
    signed: SignedState | None = None
    uploads_open: int = 0
    uploads: tuple[LocalUpload, ...] = ()
    requests: tuple[ConsentRequest, ...] = ()
