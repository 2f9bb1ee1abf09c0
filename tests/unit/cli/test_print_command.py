"""A command that is granted already: what is kept of it and when, and what helps when its file's size is not told."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from control_plane.adapters.memory.file_database import FileDatabase
from control_plane.cli.errors import Failed
from control_plane.cli.mqtt.engine import Direct, load_store
from control_plane.cli.mqtt.print_command import opened, size_of
from control_plane.cli.mqtt.run import Wanted, only_upload
from control_plane.domain.access import Principal
from control_plane.domain.uploads.model import Upload
from control_plane.services.errors import ClientRefused, ObjectStoreDown
from control_plane.services.policy import Policy
from schemas.messages import FileEntry, FileList, ListFiles
from schemas.parts import MIB, plan_parts
from tests.support.fakes import FakeClock, FakeObjects

WANTED = Wanted("restaurant-1", "0123456789abcdef0123456789abcdef", "/data/a.bin")
Files = Callable[[Principal, str, ListFiles], Awaitable[FileList]]


def direct_of(objects: FakeObjects, files: Files | None = None) -> Direct:
    """As much of a run as these need."""
    engine = SimpleNamespace(clock=FakeClock(), client_service=SimpleNamespace(files=files))
    return cast(
        "Direct", SimpleNamespace(engine=engine, store=FileDatabase(), objects=objects, policy=Policy(owner="cli-7"))
    )


def kept_in(path: Path) -> Upload:
    return asyncio.run(only_upload(load_store(path)))


def test_the_row_with_its_key_is_on_disk_before_the_multipart_upload_exists(tmp_path: Path) -> None:
    """Or what a crash leaves there could never be found again (protocol.md section 5)."""
    path = tmp_path / "state.json"
    objects = FakeObjects(fails={"create_multipart": [ObjectStoreDown("no answer, and it may be made")]})
    with pytest.raises(ObjectStoreDown):
        asyncio.run(opened(direct_of(objects), WANTED, "/data/a.bin", plan_parts(11 * MIB, 5 * MIB), path))
    upload = kept_in(path)
    assert upload.s3_key.endswith("-01234567-a.bin")
    assert upload.s3_upload_id is None


def test_the_multipart_upload_is_on_disk_before_the_command_is_printed(tmp_path: Path) -> None:
    path, objects = tmp_path / "state.json", FakeObjects()
    upload = asyncio.run(opened(direct_of(objects), WANTED, "/data/a.bin", plan_parts(11 * MIB, 5 * MIB), path))
    assert kept_in(path) == upload
    assert objects.multipart == {upload.s3_upload_id: (upload.s3_key, upload.object_token)}
    assert (upload.file_size, upload.part_size, upload.digest) == (11 * MIB, 5 * MIB, "none")


def test_a_client_that_refuses_to_list_its_file_leads_to_the_size_option() -> None:
    async def refuses(_caller: Principal, _client_id: str, _request: ListFiles) -> FileList:
        raise ClientRefused("path_not_allowed", "matches nothing")  # noqa: EM101 (a code and a sentence)

    with pytest.raises(Failed, match="--size"):
        asyncio.run(size_of(direct_of(FakeObjects(), refuses), "restaurant-1", "/data/a.bin"))


def test_the_name_of_a_file_is_escaped_in_the_listing_pattern() -> None:
    asked = []

    async def lists(_caller: Principal, _client_id: str, request: ListFiles) -> FileList:
        asked.append(request.pattern)
        return FileList((FileEntry("/data/[a]*", 7, 3),))

    assert asyncio.run(size_of(direct_of(FakeObjects(), lists), "restaurant-1", "/data/[a]*")) == 7
    assert asked == ["/data/[[]a][*]"]
