"""What an operator's key may get by way of the control plane, which makes heard commands its own.

Rule: the control plane commands an adopted upload again, with its own key, which is for every file. So it adopts
nothing that the device itself would refuse.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control_plane.adapters.memory.unsupported import UnkeptAudit
from control_plane.domain.audit.model import Act, AuditEntry, Outcome
from control_plane.domain.jobs.four_eyes import FourEyes
from control_plane.domain.uploads.model import State, Upload, UploadKey
from control_plane.services.policy import Policy
from control_plane.services.ports.messenger import Delivered
from schemas.codec import encode
from schemas.messages import CloseUpload, Command, DownloadFile, UploadConfig
from schemas.signing.canonical import SignedKind
from schemas.signing.documents import KeyEntry, KeyRole
from schemas.signing.ed25519 import Signer
from schemas.signing.trust import Trust, advance, trust_first
from schemas.topics import Channel
from schemas.values import PresignedPart
from tests.security.signed.rig import PLANE, SESSION, SignedRig
from tests.support.fakes import CLIENT
from tests.unit.device_agent.trust.fleet import ALICE, ROOT_1, TOPIC, entry, keys_of, operator, published

HOUR = timedelta(hours=1)


def trust_of(*entries: KeyEntry) -> Trust:
    """What the fleet obeys: the control plane's key for every file, and these."""
    return advance(trust_first(ROOT_1, TOPIC), published(keys_of(entry(PLANE.signer), *entries)))


@pytest.fixture
async def rig() -> AsyncIterator[SignedRig]:
    """Alice's key is for logs alone, and may not grant."""
    listed = trust_of(operator(ALICE, roles=(KeyRole.COMMAND,), paths=("/logs/**",)))
    async with SignedRig(key=PLANE, trust=lambda: listed) as rig:
        await rig.online(default_file="/data/test-file.bin")
        yield rig


def now_of(rig: SignedRig) -> datetime:
    return datetime.fromtimestamp(rig.clock.time, UTC)


async def hear(
    rig: SignedRig,
    path: str | None,
    *,
    by: Signer = ALICE,
    upload_config: UploadConfig | None = None,
    **more: Any,  # noqa: ANN401
) -> None:
    """A command of another sender on the client's topic; then the time in which the control plane would repeat it."""
    fields = {"session": SESSION, "issued_at": now_of(rig), **more}
    download = DownloadFile(file_path=path, upload_config=upload_config)
    await publish(rig, Command("heard", "download_file", download, **fields), by)
    await rig.online(sequence=1)
    await rig.settle(rig.policy.step_timeout + 1)


async def publish(rig: SignedRig, command: Command, by: Signer) -> None:
    """A command that this key signed, on the client's topic."""
    payload, topic = encode(command), rig.topics.command(CLIENT)
    signed = tuple(by.sign(SignedKind.COMMAND, topic, payload).properties())
    rig.engine.inbox.receive(Delivered(topic, payload, properties=signed))
    await rig.settle()


async def stored(rig: SignedRig, upload_id: str) -> Upload | None:
    """The upload as the control plane has it."""
    return await rig.database.read(lambda records: records.uploads.get(UploadKey(CLIENT, upload_id)))


async def commanded(rig: SignedRig) -> list[str | None]:
    """The files that the control plane itself asked for, and those of uploads that it has."""
    asked = [one.payload.file_path for _, one in rig.messenger.sent if isinstance(one.payload, DownloadFile)]
    return asked + [one.file_path for one in await rig.database.read(lambda records: records.uploads.open_of(CLIENT))]


async def test_a_command_that_the_device_obeys_is_adopted(rig: SignedRig) -> None:
    await hear(rig, "/logs/today.log")
    assert "/logs/today.log" in await commanded(rig)
    assert rig.refused == []


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> list[AuditEntry]:
    """What the audit gets; in memory it keeps nothing."""
    entries: list[AuditEntry] = []
    monkeypatch.setattr(UnkeptAudit, "add", lambda _, entry: entries.append(entry))
    return entries


async def test_an_adopted_download_is_in_the_audit_with_the_key_that_signed_it(
    rig: SignedRig, audited: list[AuditEntry]
) -> None:
    """After an operator's key leaked the records show what it got."""
    await hear(rig, "/etc/shadow")
    assert audited == []
    for _ in range(2):
        await hear(rig, "/logs/today.log")
    (entry,) = audited
    assert (entry.act, entry.subject, entry.target) == (Act.UPLOAD_ADOPT, "alice", "upload:heard")
    assert (entry.clients, entry.outcome) == ((CLIENT,), Outcome.DONE)
    assert entry.detail == {"kid": ALICE.verifier.kid, "file_path": "/logs/today.log"}


async def test_one_that_a_second_person_must_approve_is_in_the_audit_as_denied(audited: list[AuditEntry]) -> None:
    listed, secret = trust_of(operator(ALICE)), FourEyes(paths=("/logs/**",))
    async with SignedRig(Policy(four_eyes=secret), key=PLANE, trust=lambda: listed) as rig:
        await rig.online()
        await hear(rig, "/logs/today.log")
        assert [one.outcome for one in audited] == [Outcome.DENIED]


@pytest.mark.parametrize("path", ["/etc/shadow", "/logs/../etc/shadow", None])
async def test_a_key_gets_no_other_file_by_way_of_the_control_plane(rig: SignedRig, path: str | None) -> None:
    """Without a path it is the default file of the device, which is not a log."""
    await hear(rig, path)
    assert await commanded(rig) == []
    assert rig.counted("upload.refused") == 1


async def test_what_another_owner_commands_is_observed_and_never_commanded_from_here(rig: SignedRig) -> None:
    config = UploadConfig(upload_id="theirs", owner="cli-alice")
    for path, known in (("/etc/shadow", False), (None, True)):
        await hear(rig, path, upload_config=config)
        assert (await stored(rig, "theirs") is not None) == known
    assert [one for _, one in rig.messenger.sent if isinstance(one.payload, DownloadFile)] == []


async def test_a_command_of_an_old_session_is_not_signed_anew(rig: SignedRig) -> None:
    """A broker repeats what an operator has commanded weeks ago, when the upload of that time is forgotten."""
    await hear(rig, "/logs/today.log", session="O" * 22, issued_at=now_of(rig) - 2 * HOUR)
    await hear(rig, "/logs/today.log", session="O" * 22, issued_at=None)
    await hear(rig, "/logs/today.log", session=None)
    assert await commanded(rig) == []
    assert rig.refused == ["session"] * 3


async def test_a_command_that_was_on_its_way_while_the_device_connected_again_is_adopted(rig: SignedRig) -> None:
    """The device accepts its session before for an hour."""
    await hear(rig, "/logs/today.log", session="O" * 22)
    assert "/logs/today.log" in await commanded(rig)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"roles": (KeyRole.TRANSFER,)}, "role"), ({"expires": datetime.fromtimestamp(1, UTC)}, "expired")],
)
async def test_a_key_that_may_not_command_now_adds_nothing(changes: dict[str, Any], reason: str) -> None:
    listed = trust_of(operator(ALICE, **changes))
    async with SignedRig(key=PLANE, trust=lambda: listed) as rig:
        await rig.online()
        await hear(rig, "/logs/today.log")
        assert await commanded(rig) == []
        assert rig.refused == [reason]


async def test_the_channel_of_a_refused_command_is_counted(rig: SignedRig) -> None:
    await hear(rig, "/logs/x", session=None)
    assert [facts["channel"] for event, facts in rig.events if event == "message.unverified"] == [Channel.COMMAND]


BOB = Signer(b"b" * 32)
URLS = (PresignedPart(1, "https://bucket.example/key"),)


@pytest.fixture
async def owned() -> AsyncIterator[SignedRig]:
    """Two operators, each for uploads of their own terminals alone; Alice's upload `theirs` was heard."""
    each = (
        entry(one, name, owners=(f"cli-{name}-*",), paths=("/**",)) for one, name in ((ALICE, "alice"), (BOB, "bob"))
    )
    listed = trust_of(*each)
    async with SignedRig(key=PLANE, trust=lambda: listed) as rig:
        await rig.online()
        config = UploadConfig(upload_id="theirs", owner="cli-alice-laptop", presigned_urls=URLS)
        await hear(rig, "/data/a", upload_config=config)
        assert await stored(rig, "theirs") is not None
        yield rig


@pytest.mark.parametrize("owner", ["cli-alice-laptop", "control-plane"])
async def test_no_key_grants_in_the_name_of_an_owner_that_is_not_its_own(owned: SignedRig, owner: str) -> None:
    """The device refuses it, so the record of it would be of an upload that nobody sends."""
    config = UploadConfig(upload_id="phantom", owner=owner, presigned_urls=URLS)
    await hear(owned, "/data/b", by=BOB, upload_config=config)
    assert await stored(owned, "phantom") is None
    assert owned.refused == ["owner"]


@pytest.mark.parametrize(("by", "state"), [(BOB, State.DISPATCHED), (ALICE, State.FAILED)])
async def test_an_upload_is_closed_by_a_key_for_its_owner_alone(owned: SignedRig, by: Signer, state: State) -> None:
    close = CloseUpload(upload_id="theirs", attempt=1, outcome="failed")
    await publish(owned, Command("close", "close_upload", close, session=SESSION, issued_at=now_of(owned)), by)
    found = await stored(owned, "theirs")
    assert found is not None
    assert found.state is state
    assert owned.counted("upload.refused") == (1 if by is BOB else 0)


async def test_no_key_takes_over_the_attempt_of_another_owner(owned: SignedRig) -> None:
    config = UploadConfig(upload_id="theirs", owner="cli-bob-laptop", attempt=2)
    await hear(owned, "/data/b", by=BOB, upload_config=config)
    found = await stored(owned, "theirs")
    assert found is not None
    assert (found.attempt, found.owner) == (1, "cli-alice-laptop")
