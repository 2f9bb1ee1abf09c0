"""`mqtt trigger --print`: when the upload is on disk, and how the size of its file is found."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from control_plane.adapters.memory.database import FileDatabase
from control_plane.cli.errors import Failed
from control_plane.cli.mqtt.engine import Direct, load_database
from control_plane.cli.mqtt.print_command import open_upload, size_of
from control_plane.cli.mqtt.request import UploadRequest
from control_plane.cli.mqtt.run import only_upload
from control_plane.domain.access import Principal
from control_plane.domain.uploads.model import Upload
from control_plane.services.errors import ClientRefused, ObjectStoreDown
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Subject
from schemas.messages import FileEntry, FileList, ListFiles
from schemas.parts import MIB, plan_parts
from tests.support.fakes import Rig

REQUEST = UploadRequest("restaurant-1", "0123456789abcdef0123456789abcdef", "/data/a.bin")
PLAN = plan_parts(11 * MIB, 5 * MIB)
Files = Callable[[Principal, str, ListFiles], Awaitable[FileList]]


def rig_with(path: Path) -> Rig:
    """An engine that performs no duty, over a database in this file."""
    database = FileDatabase()
    database.path = path
    return Rig(Policy(owner="cli-7"), performs=False, database=database)


def direct_of(rig: Rig) -> Direct:
    """The members of a run that opening an upload uses."""
    return cast("Direct", SimpleNamespace(engine=rig.engine, object_store=rig.objects, policy=rig.policy))


def direct_with(files: Files) -> Direct:
    """The members of a run that listing a file uses."""
    engine = SimpleNamespace(client_service=SimpleNamespace(files=files))
    return cast("Direct", SimpleNamespace(engine=engine))


def kept_in(path: Path) -> Upload:
    return asyncio.run(only_upload(load_database(path)))


# These run their own loop: a database in a file waits for the disk, which the guard of asynchronous tests refuses.


def test_the_row_with_its_key_is_on_disk_before_the_multipart_upload_exists(tmp_path: Path) -> None:
    """Or what a crash leaves in the object store could never be found again (protocol.md section 5)."""
    path = tmp_path / "state.json"

    async def work() -> None:
        async with rig_with(path) as rig:
            rig.objects.fails["create_multipart"] = [ObjectStoreDown("no answer, and it may be made")]
            with pytest.raises(ObjectStoreDown):
                await open_upload(direct_of(rig), REQUEST, "/data/a.bin", PLAN)

    asyncio.run(work())
    upload = kept_in(path)
    assert upload.s3_key.endswith("-01234567-a.bin")
    assert upload.s3_upload_id is None


def test_the_multipart_upload_is_on_disk_before_the_command_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "state.json"

    async def work() -> Upload:
        async with rig_with(path) as rig:
            upload = await open_upload(direct_of(rig), REQUEST, "/data/a.bin", PLAN)
            assert rig.objects.multipart == {upload.s3_upload_id: (upload.s3_key, upload.object_token)}
            assert [one.part_number for one in rig.engine.signer.pre_grant(upload).urls] == [1, 2, 3]
            return upload

    upload = asyncio.run(work())
    kept = kept_in(path)
    assert (kept.s3_upload_id, kept.s3_key, kept.state) == (upload.s3_upload_id, upload.s3_key, "dispatched")
    assert (upload.file_size, upload.part_size, upload.digest) == (11 * MIB, 5 * MIB, "none")


def test_nothing_is_published_while_a_command_is_printed(tmp_path: Path) -> None:
    """A person publishes it; the duty waits in the state file for `backhaul mqtt resume`."""

    async def work() -> None:
        async with rig_with(tmp_path / "state.json") as rig:
            await rig.birth(client_id="restaurant-1")
            upload = await open_upload(direct_of(rig), REQUEST, "/data/a.bin", PLAN)
            await rig.settle(1_000)
            assert rig.messenger.actions() == []
            entries = await rig.database.read(lambda records: records.outbox.of(Subject.of_upload(upload.key)))
            assert [entry.duty.kind for entry in entries] == ["say_download"]

    asyncio.run(work())


def test_a_client_that_refuses_to_list_its_file_leads_to_the_size_option() -> None:
    async def refuses(_caller: Principal, _client_id: str, _request: ListFiles) -> FileList:
        raise ClientRefused("path_not_allowed", "matches nothing")  # noqa: EM101 (a code and a sentence)

    with pytest.raises(Failed, match="--size"):
        asyncio.run(size_of(direct_with(refuses), "restaurant-1", "/data/a.bin"))


def test_the_name_of_a_file_is_escaped_in_the_listing_pattern() -> None:
    patterns = []

    async def lists(_caller: Principal, _client_id: str, request: ListFiles) -> FileList:
        patterns.append(request.pattern)
        return FileList((FileEntry("/data/[a]*", 7, 3),))

    assert asyncio.run(size_of(direct_with(lists), "restaurant-1", "/data/[a]*")) == 7
    assert patterns == ["/data/[[]a][*]"]
