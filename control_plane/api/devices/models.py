"""The shapes of devices.

Rule: as `api/models.py`. A bundle is the only answer with secrets, and is in no other one.
"""

from dataclasses import replace
from typing import Annotated, Any, Final, Self

import msgspec
from pydantic import ConfigDict, Field

from control_plane.api.bodies import Input, matching
from control_plane.api.fleet.bodies import LABELS_EXAMPLE, LabelMap, Note
from control_plane.api.models import Instant, Output
from control_plane.api.parameters import CheckedClientId
from control_plane.domain.batches import MAX_COUNT, MAX_LIFE, Batch
from control_plane.domain.devices import Device, DeviceState
from control_plane.domain.enrollment import Enrollment
from control_plane.presentation import instant, known_instant
from control_plane.services.devices.batches import NewBatch
from control_plane.services.devices.service import NewDevice
from schemas.messages import MAX_ROOTS
from schemas.signing.canonical import fingerprint, key_id, to_text
from schemas.signing.enrolment import BATCH_TOKEN_PATTERN, NONCE_PATTERN, SERIAL_PATTERN, Bundle

_PATH: Final = r"^/[^\0]{0,4095}\Z"
_TEXT_43: Final = r"^[A-Za-z0-9_-]{43}\Z"
_TEXT_86: Final = r"^[A-Za-z0-9_-]{86}\Z"
_PRINT: Final = r"^([0-9a-f]{4} ){7}[0-9a-f]{4}\Z"
FINGERPRINT: Final = "d8a1 c9b2 0f3e 4d5c 6b7a 8899 aabb ccdd"
CODE: Final = "4F7K-2QXM"

AbsolutePath = Annotated[str, *matching(_PATH, "must be an absolute path")]
Host = Annotated[str, Field(min_length=1, max_length=512)]
Key = Annotated[str, *matching(_TEXT_43, "must be the base64url of 32 bytes")]
SerialText = Annotated[str, *matching(SERIAL_PATTERN, "must be a serial number: letters, digits, dots, dashes")]
SignatureText = Annotated[str, *matching(_TEXT_86, "must be the base64url of 64 bytes")]
Fingerprint = Annotated[
    str,
    *matching(_PRINT, "must be eight groups of four hex digits"),
    Field(description="Of the key that the device shows.", examples=[FINGERPRINT]),
]

DEVICE: Final[dict[str, Any]] = {
    "client_id": "restaurant-7",
    "state": "active",
    "fingerprint": FINGERPRINT,
    "kid": "ed25519:Zmh6rfhivXdsj8GLjp-OIA",
    "public_key": "apUDdlyyxuayFPGs3no7DZx1hyU1g8o1Lv5mAYwD8u8",
    "other_fingerprint": "0f3e 4d5c 6b7a 8899 aabb ccdd d8a1 c9b2",
    "other_seen_at": "2025-11-01T10:03:00.000Z",
    "awaits_claim": False,
    "keys_version": 3,
    "has_account": True,
    "created_at": "2025-11-01T09:00:00.000Z",
    "created_by": "ana",
    "pinned_at": "2025-11-01T10:00:00.000Z",
    "revoked_at": "2025-11-01T10:05:00.000Z",
    "revoked_by": "ana",
    "note": "",
}
WAITING: Final[dict[str, Any]] = {
    "user_code": CODE,
    "fingerprint": FINGERPRINT,
    "address": "192.0.2.7",
    "asked_at": "2025-11-01T10:00:00.000Z",
    "proposed": "till-007",
}
BATCH: Final[dict[str, Any]] = {
    "batch_id": "9f2c4b1d7e6a5038",
    "names": "till-{n:03}",
    "count": 100,
    "taken": 12,
    "serials": 0,
    "auto": False,
    "expires_at": "2025-12-01T10:00:00.000Z",
    "created_at": "2025-11-01T10:00:00.000Z",
    "created_by": "ana",
    "revoked_at": None,
}
BUNDLE: Final[dict[str, Any]] = {
    "format": "backhaul-bundle-v1",
    "client_id": "restaurant-7",
    "mqtt_url": "mqtts://broker.example.com:8883",
    "mqtt_password": "…",
    "topic_root": "fleet/v1",
    "ca": "-----BEGIN CERTIFICATE-----\n…",
    "root": {"document": "{…}", "signatures": []},
    "claim_secret": "…",
    "allowed_roots": ["/data"],
    "upload_hosts": ["https://s3.example.com/backups/"],
    "file_path": "/data/till.db",
    "labels": LABELS_EXAMPLE,
}


class Wanted(Input):
    """What the agent of a device gets as its settings, beside its account and its secrets."""

    allowed_roots: Annotated[tuple[AbsolutePath, ...], Field(max_length=MAX_ROOTS)] = ()
    upload_hosts: Annotated[tuple[Host, ...], Field(max_length=64)] = ()
    file_path: AbsolutePath | None = None
    labels: Annotated[LabelMap, Field(default_factory=dict)]
    note: Note = ""

    def of(self, client_id: str) -> NewDevice:
        """As the service takes it."""
        return NewDevice(
            client_id=client_id,
            allowed_roots=self.allowed_roots,
            upload_hosts=self.upload_hosts,
            file_path=self.file_path,
            labels=self.labels,
            note=self.note,
        )


class EnrollBody(Wanted):
    """A new device."""

    client_id: CheckedClientId
    keep_account: Annotated[
        bool, Field(description="The password of its account at the broker goes on, and the bundle has none.")
    ] = False

    @property
    def new(self) -> NewDevice:
        """As the service takes it."""
        return replace(self.of(self.client_id), keep_account=self.keep_account)


class NamedDevice(Wanted):
    """A device that waits for approval; the fingerprint is the one that it shows."""

    client_id: CheckedClientId
    fingerprint: Fingerprint


class AcceptBody(Input):
    """The other key of a device."""

    fingerprint: Fingerprint


class Forgetting(Input):
    """How a device is forgotten. `unsigned`: its name may speak unsigned again."""

    unsigned: bool = False


class AskBody(Input):
    """A device asks to be enrolled. `signature` is that of `request SEAL_TO NONCE`, of the kind `enroll`."""

    key: Key
    seal_to: Key
    nonce: Annotated[str, *matching(NONCE_PATTERN, "must be the base64url of 16 bytes")]
    signature: SignatureText
    token: Annotated[str, *matching(BATCH_TOKEN_PATTERN, "must be the token of a batch")] | None = None
    serial: SerialText | None = None


class BatchBody(Wanted):
    """Many devices of one image: their names, how many, for how long (s), and what their bundles say."""

    names: Annotated[str, Field(min_length=1, max_length=80, description="A name with {n}, {n:03} or {serial}.")]
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    expires_in: Annotated[float, Field(gt=0, le=MAX_LIFE, description="Seconds.")]
    auto: Annotated[bool, Field(description="Whether they join without an approval.")] = False
    serials: Annotated[tuple[SerialText, ...], Field(max_length=MAX_COUNT)] = ()

    @property
    def batch(self) -> NewBatch:
        """As the service takes it."""
        return NewBatch(self.names, self.count, self.expires_in, self.auto, self.serials, self.of(""))


class PollBody(Input):
    """The device asks whether it was approved. `signature` is that of `poll DEVICE_CODE SEQUENCE`."""

    device_code: Key
    sequence: Annotated[int, Field(ge=1, le=2**53 - 1)]
    signature: SignatureText


class EnrolledDevice(Output):
    """A device of the registry."""

    model_config = ConfigDict(json_schema_extra={"examples": [DEVICE]})

    client_id: str
    state: DeviceState
    fingerprint: Annotated[str | None, Field(description="Of the key that is pinned, or that alone can be.")]
    kid: str | None
    public_key: str | None
    other_fingerprint: Annotated[str | None, Field(description="Of another key under this name: the alarm.")]
    other_seen_at: Instant | None
    awaits_claim: Annotated[bool, Field(description="Whether a bundle waits for its first presence.")]
    keys_version: Annotated[
        int | None,
        Field(description="Version of the list of keys that it obeys; null: unsigned commands, or never seen."),
    ]
    has_account: Annotated[bool, Field(description="Whether this control plane made its account at the broker.")]
    created_at: Instant
    created_by: str
    pinned_at: Instant | None
    revoked_at: Instant | None
    revoked_by: str | None
    note: str

    @classmethod
    def of(cls, device: Device, keys_version: int | None = None) -> Self:
        """One row, without its secret; `keys_version` is of the device's last presence."""
        key = device.public_key
        return cls(
            client_id=device.client_id,
            state=device.state,
            fingerprint=None if key is None else fingerprint(key),
            kid=None if key is None else key_id(key),
            public_key=None if key is None else to_text(key),
            other_fingerprint=None if device.other_key is None else fingerprint(device.other_key),
            other_seen_at=instant(device.other_at),
            awaits_claim=device.claim_secret is not None,
            keys_version=keys_version,
            has_account=device.has_account,
            created_at=known_instant(device.created_at),
            created_by=device.created_by,
            pinned_at=instant(device.pinned_at),
            revoked_at=instant(device.revoked_at),
            revoked_by=device.revoked_by,
            note=device.note,
        )


class EnrolledDevices(Output):
    """Devices by id."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"devices": [DEVICE], "cursor": "WyJyZXN0YXVyYW50LTciXQ"}]}
    )

    devices: list[EnrolledDevice]
    cursor: str | None


class WaitingDocument(Output):
    """A device that asks to be enrolled, and the code that it shows."""

    model_config = ConfigDict(json_schema_extra={"examples": [WAITING]})

    user_code: str
    fingerprint: str
    address: str
    asked_at: Instant
    proposed: Annotated[str | None, Field(description="The name that its batch gives it.")]

    @classmethod
    def of(cls, waiting: Enrollment) -> Self:
        """One of those that wait."""
        return cls(
            user_code=waiting.user_code,
            fingerprint=waiting.fingerprint,
            address=waiting.address,
            asked_at=known_instant(waiting.asked_at),
            proposed=waiting.client_id,
        )


class WaitingList(Output):
    """Devices that wait for approval, the oldest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"requests": [WAITING]}]})

    requests: list[WaitingDocument]


class BatchDocument(Output):
    """A batch, without its token. `taken` names of `count` were given; `serials` are listed."""

    model_config = ConfigDict(json_schema_extra={"examples": [BATCH]})

    batch_id: str
    names: str
    count: int
    taken: int
    serials: int
    auto: bool
    expires_at: Instant
    created_at: Instant
    created_by: str
    revoked_at: Instant | None

    @classmethod
    def of(cls, batch: Batch, taken: int) -> Self:
        """One row."""
        return cls(**_batch(batch, taken))


class NewBatchDocument(BatchDocument):
    """A batch with its token, which is shown in this answer only."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**BATCH, "taken": 0, "token": "…"}]})

    token: str

    @classmethod
    def made(cls, batch: Batch, token: str) -> Self:
        """A new one, of which nothing is taken."""
        return cls(**_batch(batch, 0), token=token)


class BatchList(Output):
    """Batches, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"batches": [BATCH]}]})

    batches: list[BatchDocument]


def _batch(batch: Batch, taken: int) -> dict[str, Any]:
    return {
        "batch_id": batch.batch_id,
        "names": batch.pattern,
        "count": batch.count,
        "taken": taken,
        "serials": len(batch.serials),
        "auto": batch.auto,
        "expires_at": known_instant(batch.expires_at),
        "created_at": known_instant(batch.created_at),
        "created_by": batch.created_by,
        "revoked_at": instant(batch.revoked_at),
    }


class BundleDocument(Output):
    """Everything that a device needs to join, secrets among it: shown once."""

    model_config = ConfigDict(json_schema_extra={"examples": [BUNDLE]})

    format: str
    client_id: str
    mqtt_url: str
    mqtt_password: Annotated[str | None, Field(description="Null where the broker's accounts are made elsewhere.")]
    topic_root: str
    ca: Annotated[str | None, Field(description="Certificates in PEM.")]
    root: Annotated[dict[str, Any] | None, Field(description="The first root of trust; null: commands are unsigned.")]
    claim_secret: str | None
    allowed_roots: list[str]
    upload_hosts: list[str]
    file_path: str | None
    labels: dict[str, str]

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """The whole bundle."""
        found = {name: getattr(bundle, name) for name in cls.model_fields}
        return cls(**{**msgspec.to_builtins(found), "format": bundle.format})


class AskDocument(Output):
    """What the device shows, and with what it asks again (times in s)."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"device_code": "a" * 43, "user_code": CODE, "interval": 5, "expires_in": 900}]}
    )

    device_code: str
    user_code: str
    interval: int
    expires_in: int


class PollDocument(Output):
    """`sealed` is the bundle in libsodium's `crypto_box_seal`, base64url; null before an operator approved it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"interval": 5, "sealed": "…"}]})

    interval: int
    sealed: str | None
