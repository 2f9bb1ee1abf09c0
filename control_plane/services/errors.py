"""The errors of the services, grouped by what the caller should do.

Exception
└── ServiceError
    ├── Transient            the same call may succeed later
    │   ├── DatabaseUnavailable  the database
    │   ├── MessengerDown        the broker
    │   ├── BrokerRefused        a message is larger than the broker allows
    │   ├── ObjectStoreDown      the object store
    │   │   └── ClocksDiffer         its clock and this machine's differ
    │   ├── AccountsDown         the accounts of the broker cannot be changed
    │   ├── SlowDown             the caller asks too often
    │   ├── DeviceBarred         nothing is sent to this device: it is revoked, or its key changed
    │   ├── ClientSilent         a client did not answer in time
    │   └── TooManyStreams       as many event streams are open as may be
    └── Permanent            the same call will fail again
        ├── UnknownClient        no such client, or several of them
        ├── UnknownBudget
        ├── UnknownDevice
        ├── UnknownBatch         no batch of devices has this id
        ├── UnknownEnrollment    no request of a device has this code, or it has expired
        ├── DeviceRefused        the state of a device does not allow the request
        ├── UnknownGroup
        ├── UnknownUpload
        ├── UnknownJob
        ├── UnknownSchedule
        ├── UnknownToken         no token of this id was used or revoked
        ├── UnknownWebhook
        ├── UnknownDelivery      the webhook has no delivery of this number
        ├── JobExists            the id of a new job is that of another one
        ├── JobRefused           the state of a job does not allow the request
        ├── ConditionMissing     the request must name the version that it changes
        ├── ConditionFailed      the version that the request names is no longer the newest
        ├── SetChanged           a bulk act names a set of clients that is no longer the same
        ├── AmbiguousUpload      several clients have an upload of this id
        ├── NotOurs              the upload belongs to another owner
        ├── UntrustedKeys        a list of keys is not signed by the published root, or is older
        ├── OperatorNeeded       the device takes new work from an operator's signature alone
        ├── BadInput             the request contradicts itself, the settings or the limits
        ├── KeyReused            an Idempotency-Key came back with another body
        ├── KeyTaken             an object key, or an upload id of this client, is in use
        ├── QuotaExceeded        the client has as many open uploads as it may
        ├── ClientRefused        the client answered with an error
        ├── ObjectStoreRefused   the object store will not do this
        │   └── ObjectStoreForbids   these credentials may not do it now
        ├── UnsupportedRecords   this database does not keep such rows
        └── VersionConflict      another process changed the row first
"""

from collections.abc import Sequence

from control_plane.domain.reasons import Reason

_MAX_NAMED = 10
"""Ids in the text of one error."""


class ServiceError(Exception):
    """Something that a service could not do."""


class Transient(ServiceError):
    """The same call may succeed later; `retry_after` is a hint in seconds."""

    retry_after: float = 5.0

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        if retry_after is not None:
            self.retry_after = retry_after


class Permanent(ServiceError):
    """The same call will fail again."""


class DatabaseUnavailable(Transient):
    """The database is locked, full or unreachable."""


class MessengerDown(Transient):
    """The broker is unreachable, or did not acknowledge the message."""


class BrokerRefused(Transient):
    """The broker does not take a message of this size. An operator may raise the limit, so a later try can succeed."""


class ObjectStoreDown(Transient):
    """The object store did not answer, or requested a pause. It may have executed the request all the same."""


class ObjectStoreUnusable(ObjectStoreDown):
    """The object store answers, and nothing can be sent to it until an operator changes something."""


class ClocksDiffer(ObjectStoreDown):
    """The object store's clock and this machine's differ too much: nothing that is signed here is taken as meant."""

    def __init__(self, skew: float) -> None:
        """`skew` is the object store's clock minus this machine's (s)."""
        super().__init__(
            f"the object store's clock and this machine's are {skew:+.0f} s apart: set this machine's clock"
        )


class AccountsDown(Transient):
    """The accounts of the broker cannot be changed now; the text names their folder."""


class SlowDown(Transient):
    """The caller asks too often: `retry_after` seconds must pass first."""

    def __init__(self, seconds: float) -> None:
        super().__init__("this is asked too often", retry_after=seconds)


class DeviceBarred(Transient):
    """Nothing is sent to this device; `code` is the reason: it is revoked, or another key was seen under its name."""

    retry_after = 60.0

    def __init__(self, client_id: str, code: str) -> None:
        why = "is revoked" if code == "device_revoked" else "signs with another key than the one that is pinned"
        super().__init__(f"nothing is sent to {client_id!r}: the device {why}")
        self.code = code


class ClientSilent(Transient):
    """The client did not answer in time."""


class TooManyStreams(Transient):
    """As many event streams are open, or uploads named by them, as may be."""


class UnknownClient(Permanent):
    """No client of these ids ever connected, and none is expected."""

    def __init__(self, *client_ids: str) -> None:
        named = ", ".join(map(repr, client_ids[:_MAX_NAMED]))
        if len(client_ids) == 1:
            text = f"client {named} is not known: no agent has connected under this id, and no operator expects it"
        else:
            more = f" and {len(client_ids) - _MAX_NAMED} more" if len(client_ids) > _MAX_NAMED else ""
            text = f"clients {named}{more} are not known: no agent has connected under them"
        super().__init__(text)
        self.client_ids = client_ids


class UnknownBudget(Permanent):
    """There is no budget for this label."""

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no budget for {key}")


class UnknownGroup(Permanent):
    """There is no group of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"group {name!r} is not known")
        self.name = name


class UnknownUpload(Permanent):
    """There is no upload of this id."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"upload {upload_id!r} is not known")
        self.upload_id = upload_id


class UnknownJob(Permanent):
    """There is no job of this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id!r} is not known")
        self.job_id = job_id


class UnknownSchedule(Permanent):
    """There is no schedule of this id."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(f"schedule {schedule_id!r} is not known")
        self.schedule_id = schedule_id


class JobExists(Permanent):
    """The id of a new job is that of another one."""


class JobRefused(Permanent):
    """The state of a job does not allow the request; `reason` and `next_wake_at` (s) explain the state."""

    def __init__(self, text: str, state: str, reason: Reason | None = None, next_wake_at: float | None = None) -> None:
        super().__init__(text)
        self.state = state
        self.reason = reason
        self.next_wake_at = next_wake_at


class UnknownDevice(Permanent):
    """No device of this name was enrolled."""

    def __init__(self, client_id: str) -> None:
        super().__init__(f"device {client_id!r} was never enrolled")
        self.client_id = client_id


class UnknownBatch(Permanent):
    """No batch has this id."""

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"batch {batch_id!r} is unknown")
        self.batch_id = batch_id


class UnknownEnrollment(Permanent):
    """No device asks with this code: it is wrong, it has expired, or the device was approved or rejected."""

    def __init__(self) -> None:
        super().__init__("no device asks with this code: it is wrong, or has expired")


class DeviceRefused(Permanent):
    """The state of the device does not allow the request; the text names the state and what to do instead."""


class UnknownToken(Permanent):
    """No token of this id was used or revoked, or it has expired."""

    def __init__(self, token_id: str) -> None:
        super().__init__(f"token {token_id!r} was never used here, or has expired")
        self.token_id = token_id


class UnknownWebhook(Permanent):
    """There is no webhook of this id."""

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"webhook {webhook_id!r} is not known")
        self.webhook_id = webhook_id


class UnknownDelivery(Permanent):
    """The webhook has no delivery of this number: it was none of its changes, or is no longer kept."""

    def __init__(self, webhook_id: str, number: int) -> None:
        super().__init__(f"webhook {webhook_id!r} has no delivery {number}: none was made, or it is no longer kept")
        self.number = number


class ConditionMissing(Permanent):
    """The request must name the version that it changes."""


class ConditionFailed(Permanent):
    """The version that the request names is no longer the newest; `version` is."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the version is {version} by now: look at it again")
        self.version = version


class SetChanged(Permanent):
    """A bulk act names a set of clients that is no longer the same: both counts, and some of the difference."""

    def __init__(self, expected: int, found: int, added: Sequence[str] = (), removed: Sequence[str] = ()) -> None:
        super().__init__(f"{expected} clients were shown, and these are {found}, or others, by now: look again")
        self.expected = expected
        self.found = found
        self.added = list(added)
        self.removed = list(removed)


class AmbiguousUpload(Permanent):
    """Ids are unique per client only, and several clients have this one."""

    def __init__(self, upload_id: str, client_ids: list[str]) -> None:
        super().__init__(f"upload {upload_id!r} exists for {', '.join(client_ids)}: add ?client_id=")
        self.upload_id = upload_id


class NotOurs(Permanent):
    """The upload belongs to another owner: it is observed here, and cannot be changed."""


class UntrustedKeys(Permanent):
    """A list of keys that agents would refuse: too few signatures, other roots, or an older version."""


class OperatorNeeded(Permanent):
    """The device's policy takes new work only from a command that an operator signed."""

    def __init__(self, client_id: str) -> None:
        super().__init__(
            f"client {client_id!r} takes new work only from an operator's signature: "
            "`backhaul trigger --sign` with OPERATOR_KEY_FILE"
        )
        self.client_id = client_id


class BadInput(Permanent):
    """The request contradicts itself, the settings or the limits; the text names what to change."""


class KeyReused(Permanent):
    """An Idempotency-Key came back with another body."""


class KeyTaken(Permanent):
    """The object key, or the upload id of this client, is in use."""


class QuotaExceeded(Permanent):
    """The client has as many open uploads as it may."""


class ClientRefused(Permanent):
    """The client answered with an error; `code` is the device's."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"the client refused: {code}: {text}" if text else f"the client refused: {code}")
        self.code = code


class ObjectStoreRefused(Permanent):
    """The object store refuses the request; `code` is its own, such as `NoSuchUpload` or `AccessDenied`."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


class ObjectStoreForbids(ObjectStoreRefused):
    """The credentials lack the permission. An operator may replace revoked keys, so a later retry can succeed."""


class UnsupportedRecords(Permanent):
    """This database does not keep such rows: the one in memory serves single uploads only."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"the database in memory keeps no {kind}: use SQLite or PostgreSQL")


class VersionConflict(Permanent):
    """Another process changed the row between the read and the write."""
