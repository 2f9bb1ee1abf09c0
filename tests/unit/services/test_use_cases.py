"""The use cases, and what time alone makes due."""

import pytest
from msgspec.structs import replace

from control_plane.domain.errors import Forbidden, IllegalTransition
from control_plane.domain.jobs.four_eyes import FourEyes
from control_plane.domain.selectors import parse
from control_plane.domain.uploads.model import State, UploadKey
from control_plane.services.errors import (
    BadInput,
    DatabaseUnavailable,
    KeyReused,
    NotOurs,
    ObjectStoreDown,
    UnknownClient,
    UnknownUpload,
)
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Page, UploadFilter
from control_plane.services.ports.object_store import ObjectStoreCapabilities
from control_plane.services.uploads.service import TriggerRequest
from schemas.codec import encode
from schemas.messages import CloseUpload, Command, DownloadFile, UploadConfig
from schemas.topics import Channel
from schemas.values import DigestName
from tests.support.fakes import CLIENT, OPERATOR, Rig


async def test_cancel_aborts_sends_a_cancel_and_then_a_close() -> None:
    """A second cancel is a conflict."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        await rig.engine.upload_service.cancel(OPERATOR, upload.upload_id)
        await rig.settle()
        assert rig.messenger.actions() == ["cancel_upload"]
        assert rig.objects.multipart == {}
        await rig.respond(rig.offer(upload.upload_id, wanted_parts=()), "cancelled", sequence=2)
        assert rig.messenger.actions() == ["close_upload"]
        with pytest.raises(IllegalTransition):
            await rig.engine.upload_service.cancel(OPERATOR, upload.upload_id)


async def test_retry_is_a_new_upload_of_the_same_file() -> None:
    """Only once the old one is over."""
    async with Rig() as rig:
        upload = await rig.granted()
        with pytest.raises(BadInput, match="not over"):
            await rig.engine.upload_service.retry(OPERATOR, upload.upload_id)
        await rig.engine.upload_service.cancel(OPERATOR, upload.upload_id)
        view = await rig.engine.upload_service.retry(OPERATOR, upload.upload_id)
        assert view.upload.upload_id != upload.upload_id
        assert view.upload.file_path == upload.file_path


async def test_what_a_second_person_must_approve_is_no_single_upload() -> None:
    """By the path, or by the labels of the client; a job asks a second person."""
    policy = Policy(four_eyes=FourEyes(paths=("/secret/**",), selector=parse("class=bank")))
    async with Rig(policy) as rig:
        await rig.birth("till-1", labels={"class": "bank"})
        await rig.birth("till-2", labels={"class": "shop"})
        for client_id, path in (("till-1", "/data/a"), ("till-2", "/secret/a")):
            with pytest.raises(Forbidden, match="request it with a job"):
                await rig.engine.upload_service.trigger(OPERATOR, TriggerRequest(client_id, path))
        done = await rig.engine.upload_service.trigger(OPERATOR, TriggerRequest("till-2", "/data/a"))
        assert done.upload.file_path == "/data/a"


@pytest.mark.parametrize("key", ["uploads/restaurant-2/payroll.csv", "uploads/restaurant-1/a.bin", None])
async def test_no_url_is_signed_for_the_key_of_an_observed_upload(key: str | None) -> None:
    """Otherwise everyone who may publish a command could read any object of the bucket."""
    async with Rig() as rig:
        await rig.birth()
        config = UploadConfig(upload_id="cli1", owner="cli-7", key=key)
        begun = DownloadFile(upload_config=config, file_path="/a")
        await rig.deliver(Channel.COMMAND, encode(Command("m1", "download_file", begun)))
        closed = CloseUpload(upload_id="cli1", outcome="completed")
        await rig.deliver(Channel.COMMAND, encode(Command("m2", "close_upload", closed)))
        assert (await rig.upload("cli1")).state is State.COMPLETED
        with pytest.raises(NotOurs, match="cli-7"):
            await rig.engine.upload_service.object_url(OPERATOR, "cli1")


async def test_a_retry_of_an_observed_upload_has_this_owner_and_a_new_key() -> None:
    """Only the path and the options of the observed command are used."""
    async with Rig() as rig:
        await rig.birth()
        config = UploadConfig(upload_id="cli1", owner="cli-7", key="uploads/restaurant-2/payroll.csv")
        begun = DownloadFile(upload_config=config, file_path="/a")
        await rig.deliver(Channel.COMMAND, encode(Command("m1", "download_file", begun)))
        closed = CloseUpload(upload_id="cli1", outcome="cancelled")
        await rig.deliver(Channel.COMMAND, encode(Command("m2", "close_upload", closed)))
        again = (await rig.engine.upload_service.retry(OPERATOR, "cli1")).upload
        assert (again.owner, again.s3_key) == ("control-plane", "uploads/restaurant-1/19700101-001640-a")


async def test_two_triggers_in_one_second_have_two_keys() -> None:
    """The second one has the first eight characters of its id before the name."""
    async with Rig() as rig:
        await rig.birth()
        first, second = await rig.trigger(), await rig.trigger()
        assert first.upload.s3_key == "uploads/restaurant-1/19700101-001640-test-file.bin"
        assert (
            second.upload.s3_key == f"uploads/restaurant-1/19700101-001640-{second.upload.upload_id[:8]}-test-file.bin"
        )


async def test_an_idempotency_key_stands_for_one_upload() -> None:
    """Another body under it is refused."""
    async with Rig() as rig:
        await rig.birth()
        first = await rig.trigger(idempotency_key="k", body_digest="b")
        again = await rig.trigger(idempotency_key="k", body_digest="b")
        assert again.upload.upload_id == first.upload.upload_id
        with pytest.raises(KeyReused):
            await rig.trigger(idempotency_key="k", body_digest="other")


async def test_an_idempotency_key_outlives_the_requested_deadline() -> None:
    """A caller without an answer repeats its request: the upload is found, though it could not be created now."""
    async with Rig() as rig:
        await rig.birth()
        deadline = rig.clock.time + 10
        first = await rig.trigger(idempotency_key="k", body_digest="b", deadline=deadline)
        rig.clock.time += 11
        again = await rig.trigger(idempotency_key="k", body_digest="b", deadline=deadline)
        assert again.upload.upload_id == first.upload.upload_id
        with pytest.raises(KeyReused):
            await rig.trigger(idempotency_key="k", body_digest="other", deadline=deadline)
        with pytest.raises(BadInput, match="passed"):
            await rig.trigger(idempotency_key="another", body_digest="b", deadline=deadline)
        await rig.engine.client_service.forget(OPERATOR, first.upload.client_id)
        assert (await rig.trigger(idempotency_key="k", body_digest="b")).upload == again.upload


async def test_a_bad_request_names_what_to_change() -> None:
    """Unknown client, no path, too much metadata, a deadline too far."""
    async with Rig() as rig:
        with pytest.raises(UnknownClient):
            await rig.trigger()
        await rig.birth(default_file=None)
        with pytest.raises(BadInput, match="name a file_path"):
            await rig.trigger()
        with pytest.raises(BadInput, match="4096"):
            await rig.trigger(file_path="/a", metadata={"k": "v" * 5000})
        with pytest.raises(BadInput, match="30 days"):
            await rig.trigger(file_path="/a", deadline=rig.clock.time + 31 * 86_400)
        with pytest.raises(BadInput, match="passed"):
            await rig.trigger(file_path="/a", deadline=1.0)
        with pytest.raises(BadInput, match="not allowed"):
            await rig.engine.upload_service.trigger(OPERATOR, TriggerRequest("a/b"))
        with pytest.raises(UnknownUpload):
            await rig.engine.upload_service.upload(OPERATOR, "nope")


async def test_the_deadline_expires_an_upload() -> None:
    """By the clock and the stored state alone."""
    async with Rig() as rig:
        await rig.birth()
        view = await rig.trigger(deadline=rig.clock.time + 10)
        rig.clock.time += 11
        assert await rig.engine.maintenance.expire() == 1
        upload = await rig.upload(view.upload.upload_id)
        assert (upload.state, upload.error) == (State.EXPIRED, "deadline_passed")


async def test_unused_multipart_uploads_are_aborted_and_foreign_ones_reported() -> None:
    """Under a key of an upload, with an id that is not its own, an hour after it was created."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.objects.multipart["crashed"] = (upload.s3_key, "token")
        rig.objects.multipart["stranger"] = ("uploads/somebody/else", "token")
        config = UploadConfig(upload_id="cli1", owner="cli-7", key="uploads/direct")
        await rig.deliver(Channel.COMMAND, encode(Command("m", "download_file", DownloadFile(upload_config=config))))
        rig.objects.multipart["direct"] = ("uploads/direct", "token")
        report = await rig.engine.maintenance.sweep_litter()
        assert (report.aborted, len(report.foreign)) == (0, 0)
        rig.clock.time += 4000
        report = await rig.engine.maintenance.sweep_litter()
        await rig.settle()
        assert (report.aborted, [one.s3_upload_id for one in report.foreign]) == (1, ["stranger", "direct"])
        assert set(rig.objects.multipart) == {upload.s3_upload_id, "stranger", "direct"}
        assert (await rig.upload("cli1")).litter == ()


async def test_unused_multipart_uploads_of_earlier_attempts_are_aborted_whatever_their_key() -> None:
    """The kind: what is in flight under an object key that the upload's row does not hold any more.

    The answers to two CreateMultipartUpload were lost, of the first and of the second attempt.
    """
    async with Rig() as rig:
        upload = await rig.granted()
        moved = replace(upload, s3_key=upload.next_key, attempt=2)
        moved = replace(moved, s3_key=moved.next_key, attempt=3)
        await rig.database.write(lambda records: records.uploads.save(upload, moved))
        for name, key in zip(("third", "second", "first"), moved.keys, strict=True):
            rig.objects.multipart[name] = (key, "token")
        rig.objects.multipart["stranger"] = (f"{upload.s3_key}-of-another", "token")
        rig.clock.time += 4000
        report = await rig.engine.maintenance.sweep_litter()
        await rig.settle()
        assert [one.s3_upload_id for one in report.foreign] == ["stranger"]
        assert "stranger" in rig.objects.multipart
        assert not {"first", "second", "third"} & set(rig.objects.multipart)
        assert (await rig.upload(upload.upload_id)).litter == ()


async def test_history_is_pruned_but_no_open_upload() -> None:
    """After `HISTORY_DAYS`."""
    async with Rig(Policy(history=100)) as rig:
        done, open_one = await rig.finished(), (await rig.trigger()).upload
        rig.clock.time += 200
        assert await rig.engine.maintenance.prune() == 1
        found, _ = await rig.engine.upload_service.uploads(OPERATOR, UploadFilter(), Page())
        assert [view.upload.upload_id for view in found] == [open_one.upload_id]
        assert done.upload_id != open_one.upload_id


async def test_a_failed_commit_raises_in_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next commit succeeds."""

    async def broken(_self: object, _work: object) -> None:
        message = "disk full"
        raise DatabaseUnavailable(message)

    async with Rig() as rig:
        await rig.birth()
        with monkeypatch.context() as patch:
            patch.setattr(type(rig.database), "write", broken)
            with pytest.raises(DatabaseUnavailable):
                await rig.engine.upload_service.trigger(OPERATOR, TriggerRequest(CLIENT))
        assert (await rig.trigger()).upload.state is State.QUEUED


async def test_forgetting_a_client_clears_its_retained_presence() -> None:
    """Its uploads stay."""
    async with Rig() as rig:
        upload = await rig.granted()
        await rig.engine.client_service.forget(OPERATOR, CLIENT)
        assert rig.messenger.cleared == [CLIENT]
        with pytest.raises(UnknownClient):
            await rig.engine.client_service.client(OPERATOR, CLIENT)
        assert (await rig.upload(upload.upload_id)).key == UploadKey(CLIENT, upload.upload_id)


async def test_readiness_names_what_is_wrong() -> None:
    """Broker, database, object store."""
    async with Rig() as rig:
        assert (await rig.engine.readiness.readiness(OPERATOR)).ready
        rig.messenger.down = True
        rig.objects.fails = {"head": [ObjectStoreDown("no route")]}
        readiness = await rig.engine.readiness.readiness(OPERATOR)
        assert not readiness.ready
        assert dict(readiness.checks) == {
            "broker": "not connected",
            "database": "ok",
            "object_store": "no route",
            "clock": "ok",
        }


@pytest.mark.parametrize(
    ("wanted", "enforced", "used"),
    [
        (DigestName.SHA256, {DigestName.SHA256}, DigestName.SHA256),
        (DigestName.SHA256, set(), DigestName.MD5),
        (DigestName.CRC32, {DigestName.MD5}, DigestName.MD5),
        (DigestName.NONE, set(), DigestName.NONE),
    ],
)
async def test_a_digest_is_used_only_where_the_object_store_enforces_it(
    wanted: DigestName, enforced: set[DigestName], used: DigestName
) -> None:
    """MD5 is used anywhere."""
    async with Rig(Policy(digest=wanted)) as rig:
        rig.objects.capabilities = ObjectStoreCapabilities(part_digests=frozenset(enforced))
        await rig.engine.probe.probe()
        await rig.birth()
        assert (await rig.trigger()).upload.digest is used
