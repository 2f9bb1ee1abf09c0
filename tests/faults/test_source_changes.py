"""A file that changes during its upload: the object is one whole version of the file, or there is no object.

Rule: the upload stalls in the middle of a part while the file is changed. A new attempt begins after a pause of 5 to
60 s, so the uploads that need one run in parallel.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.fault_sites import CHUNK, MIB, FaultSite
from tests.support.strict_s3 import Fault, Kind, Operation

pytestmark = pytest.mark.slow

PARTS: Final = 3


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"one more line")


def truncate(path: Path) -> None:
    os.truncate(path, CHUNK + 5)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2 * CHUNK)
        file.write(b"other bytes")


def rewrite_in_secret(path: Path) -> None:
    """Rewrite in place and restore the modification time: only ctime shows the change."""
    before = path.stat()
    rewrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rewrite_what_was_stored_in_secret(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"other bytes")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rewrite_what_was_sent(path: Path) -> None:
    """Rewrite a part that is stored, and append: with `prefix` neither the size nor the later parts show the change."""
    with path.open("r+b") as file:
        file.write(b"other bytes")
    append(path)


def replace(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(os.urandom(2 * CHUNK))
    other.replace(path)


CHANGES: Final[dict[str, tuple[str, Callable[[Path], None]]]] = {
    "append": ("fail", append),
    "truncate": ("fail", truncate),
    "rewrite": ("fail", rewrite),
    "rewrite-in-secret": ("fail", rewrite_in_secret),
    "replace": ("fail", replace),
    "truncate-prefix": ("prefix", truncate),
    "rewrite-prefix": ("prefix", rewrite_what_was_sent),
}


@pytest.fixture(scope="module")
def changed(shared_site: FaultSite) -> Iterator[dict[str, dict[str, Any]]]:
    """One upload for each change, made while the second part of its file is stalled; the uploads after their end."""
    site, client_id = shared_site, "changing"
    site.reset()
    site.attach(client_id, MAX_PARALLEL_PARTS="16")
    paths = {case: site.file(client_id, case, PARTS * CHUNK) for case in CHANGES}
    stall = {"kind": Kind.STALL, "operation": Operation.UPLOAD_PART, "part_number": 2, "at_byte": MIB, "seconds": 8.0}
    site.strict.add(*(Fault.read({**stall, "key": f"*[0-9]-{case}"}) for case in CHANGES))
    uploads = {
        case: site.trigger(client_id, path, options={"on_change": CHANGES[case][0]}) for case, path in paths.items()
    }
    for case, upload_id in uploads.items():
        site.until(lambda one=upload_id: _stored(site, one), f"a part of {case}")  # type: ignore[misc]
        CHANGES[case][1](paths[case])
    ended = {case: site.ended(upload_id, 100) for case, upload_id in uploads.items()}
    yield {
        case: {
            **upload,
            "equal": upload["state"] == "completed" and site.stored(upload["upload_id"]) == paths[case].read_bytes(),
            "s3_uploads": site.s3_uploads(upload["upload_id"]),
        }
        for case, upload in ended.items()
    }
    site.reset()


def _stored(site: FaultSite, upload_id: str) -> bool:
    return any(one.done for one in site.events(upload_id, Operation.UPLOAD_PART))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", CHANGES)
def test_a_changed_file_is_uploaded_whole_in_a_new_attempt(changed: dict[str, dict[str, Any]], case: str) -> None:
    upload = changed[case]
    assert (upload["state"], upload["error"], upload["attempt"]) == ("completed", None, 2)
    assert upload["equal"]
    assert len(upload["s3_uploads"]) == 2


@pytest.mark.parametrize("change", [append, truncate, rewrite_in_secret, replace])
def test_with_fail_a_change_ends_the_attempt_with_a_reason(
    site: FaultSite, name: str, change: Callable[[Path], None]
) -> None:
    upload_id, path = site.begun(name, parts=PARTS)
    change(path)
    site.s3.flow()
    site.until(lambda: site.upload(upload_id)["attempt"] == 2, "the new attempt")
    upload = site.upload(upload_id)
    assert upload["state"] == "queued"
    assert upload["reason"]
    assert upload["reason"]["next_wake_at"]
    assert not [one for one in site.events(upload_id, Operation.COMPLETE_MULTIPART_UPLOAD) if one.done]


def test_with_fail_a_deleted_file_ends_as_source_gone(site: FaultSite, name: str) -> None:
    upload_id, path = site.begun(name, parts=PARTS)
    path.unlink()
    site.s3.flow()
    upload = site.ended(upload_id)
    assert (upload["state"], upload["error"]) == ("failed", "source_gone")


@pytest.mark.parametrize("change", [append, Path.unlink, replace], ids=["append", "delete", "replace"])
def test_with_prefix_exactly_the_first_bytes_are_uploaded(
    site: FaultSite, name: str, change: Callable[[Path], None]
) -> None:
    upload_id, path = site.begun(name, parts=PARTS, on_change="prefix")
    content = path.read_bytes()
    change(path)
    site.s3.flow()
    upload = site.ended(upload_id)
    assert (upload["state"], upload["attempt"]) == ("completed", 1)
    assert site.stored(upload_id) == content


def test_with_prefix_a_log_that_grew_meanwhile_resumes(site: FaultSite, name: str) -> None:
    upload_id, path = site.begun(name, parts=PARTS, on_change="prefix")
    content = path.read_bytes()
    site.agents[name].kill()
    append(path)
    site.s3.flow()
    site.agents[name].start()
    assert site.ended(upload_id)["attempt"] == 1
    assert site.stored(upload_id) == content


@pytest.mark.parametrize("on_change", ["fail", "prefix"])
def test_a_file_deleted_while_the_agent_was_dead_is_source_gone(site: FaultSite, name: str, on_change: str) -> None:
    upload_id, path = site.begun(name, parts=PARTS, on_change=on_change)
    site.agents[name].kill()
    path.unlink()
    site.s3.flow()
    site.agents[name].start()
    upload = site.ended(upload_id)
    assert (upload["state"], upload["error"]) == ("failed", "source_gone")


@pytest.mark.parametrize("change", [append, rewrite, rewrite_what_was_stored_in_secret])
def test_a_file_changed_while_the_agent_was_dead_is_a_new_attempt(
    site: FaultSite, name: str, change: Callable[[Path], None]
) -> None:
    upload_id, path = site.begun(name, parts=PARTS)
    site.agents[name].kill()
    change(path)
    site.s3.flow()
    site.agents[name].start()
    site.until(lambda: site.upload(upload_id)["attempt"] == 2, "the new attempt")
    assert not [one for one in site.events(upload_id, Operation.COMPLETE_MULTIPART_UPLOAD) if one.done]


@pytest.mark.parametrize("killed", [False, True], ids=["running", "killed"])
def test_changes_of_metadata_end_no_attempt(site: FaultSite, name: str, *, killed: bool) -> None:
    """A new mode, owner or link moves ctime, and no byte; three such changes would use up all attempts."""
    upload_id, path = site.begun(name, parts=PARTS)
    if killed:
        site.agents[name].kill()
    path.chmod(0o640)
    os.chown(path, os.getuid(), os.getgid())
    path.with_suffix(".link").hardlink_to(path)
    site.s3.flow()
    if killed:
        site.agents[name].start()
    upload = site.ended(upload_id)
    assert (upload["state"], upload["attempt"]) == ("completed", 1)
    assert site.stored(upload_id) == path.read_bytes()
