"""A signed agent; the test takes the place of its broker, and of everyone who publishes there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from device_agent.durability import LINGER
from device_agent.inbox import BirthArrived, CommandArrived, Connected, EffectDone, KeysArrived
from device_agent.mqtt.connection import AckToken
from device_agent.transfer.events import Digested, Opened
from device_agent.transfer.model import Transfer
from device_agent.trust.identity import open_identity
from device_agent.trust.signing import DeviceSigning
from device_agent.trust.trust_file import TrustFile
from device_agent.uploads import Run
from schemas.codec import decode, decode_response
from schemas.messages import Presence, Response
from schemas.signing.canonical import Signature, SignedKind
from schemas.signing.documents import KeyEntry, TrustDocument
from schemas.signing.ed25519 import Signer
from schemas.signing.trust import encode_trust
from schemas.topics import Topics
from tests.unit.device_agent.agent_loop import FILE, AgentLoop
from tests.unit.device_agent.device import durable
from tests.unit.device_agent.trust.fleet import PLANE, TOPIC, entry, operator, trusting

TOPICS: Final = Topics()
COMMANDS: Final = TOPICS.command("d1")


class SignedLoop:
    """An agent that trusts the control plane and ALICE; `restart` begins a new process over its state folder.

    `options` are those of `AgentLoop`.
    """

    def __init__(self, folder: Path, *entries: KeyEntry, **options: Any) -> None:  # noqa: ANN401
        self.folder = folder
        self._options = options
        trusting(folder, *(entries or (entry(), operator())))
        self._start()

    def _start(self) -> None:
        self.signing = DeviceSigning(
            open_identity(self.folder),
            TrustFile.open(self.folder, TOPIC),
            client_id="d1",
            topics=TOPICS,
            clock=lambda: self.loop.now,
        )
        self._received = 0
        self.loop = AgentLoop(self.folder, signing=self.signing, **self._options)
        self.connect()

    def restart(self) -> None:
        """Another process, with the journal of the one before."""
        self.loop.journal.commit()
        self.loop.journal.close()
        self._start()

    def connect(self) -> None:
        """A new connection: the will is made before it."""
        self.loop.agent._presence.will()
        self.loop.agent.turn([Connected()])

    @property
    def session(self) -> str:
        """The session of the last presence."""
        last = [one for one in self.loop.network.published if b'"status":"online"' in one][-1]
        session = decode(Presence, last).session
        assert session is not None
        return session

    def payload(
        self,
        action: str,
        message_id: str = "",
        *,
        session: str | None = "",
        issued_at: str = "2026-02-01T00:00:00Z",
        **payload: Any,  # noqa: ANN401
    ) -> bytes:
        """A command in the present session, or in `session`; None for none."""
        named = self.session if session == "" else session
        message = {
            "message_id": message_id or f"m-{action}",
            "action": action,
            "payload": payload,
            "issued_at": issued_at,
            **({} if named is None else {"session": named}),
        }
        return msgspec.json.encode(message)

    def receive(self, data: bytes, signature: Signature | None) -> list[Response]:
        """The agent receives a command; the responses that follow at once."""
        before = len(self.loop.network.published)
        self._received += 1
        self.loop.agent.turn([CommandArrived(data, AckToken(1, 1), signature=signature)])
        return [decode_response(one) for one in self.loop.network.published[before:] if b'"message_id"' in one]

    def send(self, action: str, message_id: str = "", *, by: Signer = PLANE, **payload: Any) -> list[Response]:  # noqa: ANN401
        """The agent receives a signed command."""
        return self.sent(self.payload(action, message_id, **payload), by)

    def sent(self, data: bytes, by: Signer = PLANE) -> list[Response]:
        """The agent receives this payload, signed."""
        return self.receive(data, signed(data, by))

    def birth(self, data: bytes, signature: Signature | None) -> None:
        """The agent receives a birth."""
        self.loop.agent.turn([BirthArrived(data, signature)])

    def keys(self, published: TrustDocument | bytes) -> None:
        """The agent receives what is retained on the topic of the keys."""
        data = published if isinstance(published, bytes) else encode_trust(published)
        self.loop.agent.turn([KeysArrived(data)])

    def requesting(self) -> Run:
        """An upload that waits for its first grant."""
        config = {"upload_id": "u1", "owner": "control-plane"}
        self.send("download_file", file_path="/data/a", upload_config=config)
        run = self.loop.agent.uploads.get("u1")
        assert run is not None
        self.loop.agent.turn([EffectDone(run, run.session, Opened(now=1.0, fingerprint=FILE), "open")])
        self.loop.agent.turn([EffectDone(run, run.session, Digested(now=1.0, digests={1: "d1", 2: "d2"}), "digest")])
        return run

    def sending(self) -> Run:
        """An upload with its first part in flight."""
        run = self.requesting()
        urls = [{"part_number": n, "url": f"https://s/{n}"} for n in (1, 2)]
        self.send("grant_parts", upload_id="u1", presigned_urls=urls, acknowledges=1)
        assert 1 in run.transfer.in_flight
        return run

    @property
    def unverified(self) -> int:
        """What the presence says that was not verified."""
        return self.signing.unverified

    def state(self) -> tuple[dict[str, Transfer], bytes, bytes]:
        """Everything that a message can change: uploads, journal, trust; every command is acknowledged by then."""
        self.loop.now += LINGER
        self.loop.agent.turn([])
        assert len(self.loop.network.acknowledged) == self._received
        transfers = {run.upload_id: durable(run.transfer) for run in self.loop.agent.uploads}
        journal, trust = self.folder / "journal", self.folder / "trust.json"
        return transfers, journal.read_bytes() if journal.exists() else b"", trust.read_bytes()


def signed(data: bytes, by: Signer = PLANE, kind: SignedKind = SignedKind.COMMAND, topic: str = COMMANDS) -> Signature:
    """The signature of a message."""
    return by.sign(kind, topic, data)


def codes(responses: Sequence[Response]) -> list[tuple[str, str | None]]:
    """Status and error of each response."""
    return [(one.status, one.error) for one in responses]
