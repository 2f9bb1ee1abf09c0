"""Makes receipts: takes those that devices sign, signs alone where none comes, and stores them beside their objects.

Rule: off the path of the upload. Nothing is acknowledged to a device before its receipt is committed; all that is
missing after a crash is a duty of the upload's state.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from control_plane.domain.uploads.duties import close
from control_plane.domain.uploads.events import ReceiptDone, ReceiptRefused, ReceiptSigned
from control_plane.domain.uploads.model import State, Upload, UploadKey, UploadReceipt
from control_plane.services.errors import ServiceError
from control_plane.services.fair_queue import FairQueue
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.object_store import ObjectStore
from control_plane.services.receipts.making import sign_alone, witness
from control_plane.services.uploads.writer import Decision, UploadWriter
from schemas.errors import SchemaError
from schemas.names import RECEIPT_SUFFIX
from schemas.receipts.envelope import Envelope, decode_envelope, encode_envelope

if TYPE_CHECKING:
    from schemas.signing.ed25519 import Signer, Verifier

MAX_WAITING: Final = 1_000
MAX_OF_ONE: Final = 64
"""Receipts that were received and are not verified yet, of all devices and of one; further ones are dropped, and their
devices repeat them. Devices take turns."""

DEVICE_WAIT: Final = 900.0
"""Seconds after the completion for which the control plane waits for the device's signature before it signs alone."""


@dataclass(frozen=True, slots=True)
class ReceiptRules:
    """`signer` is the control plane's key. `beside`: a copy is stored beside the object.

    `device_key` is the pinned key of a client, None for one without.
    """

    signer: "Signer"
    device_key: "Callable[[str], Verifier | None]" = lambda _client_id: None
    beside: bool = True
    device_wait: float = DEVICE_WAIT

    def begin(self, upload: Upload, now: float) -> UploadReceipt:
        """The receipt that is to be made of an upload which is completed now."""
        asked = self.device_key(upload.client_id) is not None
        return UploadReceipt(now + self.device_wait if asked else now, asked)


def receipt_key(s3_key: str) -> str:
    """The key of the receipt beside an object."""
    return f"{s3_key}{RECEIPT_SUFFIX}"


class ReceiptMaker:
    """Performs the duty of an upload's receipt, and takes the receipts that devices send."""

    def __init__(
        self,
        rules: ReceiptRules,
        *,
        database: Database,
        object_store: ObjectStore,
        clock: Clock,
        log: EventLog,
        writer: UploadWriter,
        release: Callable[[Decision], None],
    ) -> None:
        self.rules = rules
        self._database = database
        self._object_store = object_store
        self._clock = clock
        self._log = log
        self._writer = writer
        self._release = release
        self._arrived: FairQueue[tuple[UploadKey, int, Envelope]] = FairQueue(most=MAX_WAITING, most_of_one=MAX_OF_ONE)

    def receive(self, key: UploadKey, attempt: int, envelope: Envelope) -> None:
        """Take a receipt that a device has signed; never waits."""
        if not self._arrived.offer(key.client_id, (key, attempt, envelope)):
            self._log("receipt.shed", _about(key))

    async def run(self) -> None:
        """Verify what arrived, until cancelled."""
        while True:
            key, attempt, envelope = await self._arrived.get()
            try:
                await self._take(key, attempt, envelope)
            except ServiceError as error:
                # The device is not answered, and repeats its receipt.
                self._log("receipt.failed", {**_about(key), "error": str(error)})
            except Exception as error:  # noqa: BLE001 - a fault in one receipt must not end those of others
                self._log("receipt.failed", {**_about(key), "error": repr(error)[:500]})

    async def _take(self, key: UploadKey, attempt: int, envelope: Envelope) -> None:
        upload, now = await self._database.read(lambda records: records.uploads.get(key)), self._clock.now()
        if upload is None:
            self._release(Decision(key, None, (), attempt))
            return
        receipt = upload.receipt
        if upload.state is not State.COMPLETED or attempt != upload.attempt or receipt is None or not receipt.wanted:
            self._release(Decision(key, upload, close(upload, now), attempt))
            return
        try:
            device = self._key_of(key.client_id)
            signed = witness(upload, envelope, device, self.rules.signer)
        except SchemaError as error:
            self._log("receipt.refused", {**_about(key), "error": str(error)})
            self._writer.enqueue(key, ReceiptRefused(now=now, attempt=attempt, text=str(error)))
            return
        self._writer.enqueue(
            key,
            ReceiptSigned(
                now=now,
                attempt=attempt,
                envelope=encode_envelope(signed).decode(),
                witness_key=self.rules.signer.verifier.text,
                device_key=device.text,
            ),
        )

    def _key_of(self, client_id: str) -> "Verifier":
        device = self.rules.device_key(client_id)
        if device is None:
            message = "no key of this client is pinned"
            raise SchemaError(message)
        return device

    async def perform(self, upload: Upload) -> None:
        """Sign the receipt if nobody has, and store it beside the object; `ObjectStoreDown`, `ObjectStoreRefused`."""
        receipt, signer = upload.receipt, self.rules.signer
        if receipt is None:
            return
        if receipt.envelope is None:
            envelope = encode_envelope(sign_alone(upload, signer)).decode()
            signed = ReceiptSigned(
                now=self._clock.now(), attempt=upload.attempt, envelope=envelope, witness_key=signer.verifier.text
            )
            upload = await self._writer.submit(upload.key, signed)
            receipt = upload.receipt
            if receipt is None or receipt.envelope is None:
                return
        await self._store(upload, receipt.envelope)

    async def _store(self, upload: Upload, envelope: str) -> None:
        """Store this receipt beside its object; once more if a better one was committed meanwhile.

        A slow PUT may land after that of the better one, which is not repeated by anyone else.
        """
        newer: str | None = envelope
        while newer is not None:
            envelope = newer
            if self.rules.beside:
                await self._object_store.put(receipt_key(upload.s3_key), io.BytesIO(envelope.encode()))
            done = ReceiptDone(now=self._clock.now(), attempt=upload.attempt, envelope=envelope)
            after = (await self._writer.submit(upload.key, done)).receipt
            newer = None if after is None or after.envelope == envelope else after.envelope


def envelope_of(receipt: UploadReceipt | None) -> Envelope | None:
    """The signed receipt; None while it is not made."""
    return None if receipt is None or receipt.envelope is None else decode_envelope(receipt.envelope.encode())


def _about(key: UploadKey) -> dict[str, str]:
    return {"client_id": key.client_id, "upload_id": key.upload_id}
