"""Files of a job in a folder: complete and checked, or not under their name; and nowhere else."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from control_plane.cli.errors import Failed
from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.rest.jobs.pull import Puller, unfinished_place

CONTENTS = {"u1": b"one" * 1000, "u2": b"two" * 5000, "u3": b""}


def line(upload_id: str, path: str, client_id: str = "till-1", **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """A line of the results, as REST writes it."""
    content = CONTENTS[upload_id]
    digest = f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"
    return {
        "client_id": client_id,
        "path": path,
        "outcome": "proven",
        "upload_id": upload_id,
        "bytes": len(content),
        "digest": digest,
        **more,
    }


class Plane(ControlPlane):
    """A control plane that has these results."""

    def __init__(self, *lines: Mapping[str, Any]) -> None:
        self._lines = lines

    def lines(self, path: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Iterator[str]:
        assert (path, params) == ("/jobs/j/results", {"format": "jsonl"})
        return (json.dumps(one) + "\n" for one in self._lines)

    def url(self, upload_id: str, client_id: str | None = None) -> dict[str, Any]:
        return {"url": f"https://s3.example/{client_id}/{upload_id}"}


class Objects:
    """An object store; `reads` are the objects that were read, with the byte at which each began."""

    def __init__(self) -> None:
        self.contents = dict(CONTENTS)
        self.reads: list[tuple[str, int]] = []

    def read(self, url: str, start: int) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        self.reads.append((name, start))
        content = self.contents[name][start:]
        return (content[at : at + 1000] for at in range(0, len(content), 1000))


def pull(folder: Path, objects: Objects, *lines: Mapping[str, Any]) -> dict[str, Any]:
    """The document of one command."""
    return Puller(Plane(*lines), folder, parallel=2, read=objects.read).run("j").document()


def test_every_proven_file_is_fetched_once(tmp_path: Path) -> None:
    """The second command finds all of them, and reads nothing."""
    objects = Objects()
    lines = [line("u1", "/data/a"), line("u2", "/data/b/c"), line("u3", "/e"), line("u1", "/x", outcome="failed")]
    assert pull(tmp_path, objects, *lines)["fetched"] == 3
    assert (tmp_path / "till-1/data/a").read_bytes() == CONTENTS["u1"]
    assert (tmp_path / "till-1/data/b/c").read_bytes() == CONTENTS["u2"]
    assert (tmp_path / "till-1/e").read_bytes() == b""
    objects.reads.clear()
    assert pull(tmp_path, objects, *lines)["present"] == 3
    assert objects.reads == []


def test_an_unfinished_file_is_resumed(tmp_path: Path) -> None:
    """Only what is missing is read."""
    objects, part = Objects(), tmp_path / unfinished_place("till-1/a")
    part.parent.mkdir()
    part.write_bytes(CONTENTS["u1"][:1200])
    assert pull(tmp_path, objects, line("u1", "/a"))["fetched"] == 1
    assert objects.reads == [("u1", 1200)]
    assert (tmp_path / "till-1/a").read_bytes() == CONTENTS["u1"]


@pytest.mark.parametrize("left", [b"x" * 1200, b"x" * 3000, b"x" * 9999])
def test_what_is_no_beginning_of_the_object_is_fetched_again(tmp_path: Path, left: bytes) -> None:
    """An unfinished file of another object does not make the new one wrong."""
    objects, part = Objects(), tmp_path / unfinished_place("till-1/a")
    part.parent.mkdir()
    part.write_bytes(left)
    assert pull(tmp_path, objects, line("u1", "/a"))["fetched"] == 1
    assert (tmp_path / "till-1/a").read_bytes() == CONTENTS["u1"]


def test_a_file_whose_content_differs_gets_no_name(tmp_path: Path) -> None:
    """And its siblings are fetched."""
    objects = Objects()
    objects.contents["u1"] = b"bad" * 1000
    done = pull(tmp_path, objects, line("u1", "/a"), line("u2", "/b"))
    assert (done["fetched"], list(done["failed"])) == (1, ["till-1/a"])
    assert [path.name for path in (tmp_path / "till-1").iterdir()] == ["b"]


@pytest.mark.parametrize("names", [("/a", "/a.part"), ("/a.part", "/a")])
def test_a_file_whose_name_is_that_of_another_with_an_ending_is_one_of_its_own(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    """Whichever is fetched first stays as it is, and nothing unfinished is left."""
    lines = [line("u1", names[0]), line("u2", names[1])]
    for _ in range(2):
        assert not pull(tmp_path, Objects(), *lines)["failed"]
        for name, upload_id in zip(names, ("u1", "u2"), strict=True):
            assert (tmp_path / f"till-1{name}").read_bytes() == CONTENTS[upload_id]
    assert [path.name for path in tmp_path.iterdir()] == ["till-1"]


def test_a_changed_local_file_is_replaced(tmp_path: Path) -> None:
    """Its size alone does not make it the object."""
    objects = Objects()
    (tmp_path / "till-1").mkdir()
    (tmp_path / "till-1/a").write_bytes(b"x" * 3000)
    assert pull(tmp_path, objects, line("u1", "/a"))["fetched"] == 1
    assert (tmp_path / "till-1/a").read_bytes() == CONTENTS["u1"]


def test_a_file_without_a_digest_is_counted_as_unchecked(tmp_path: Path) -> None:
    """Its size is compared all the same."""
    done = pull(tmp_path, Objects(), line("u1", "/a", digest=None), line("u2", "/b", digest=None, bytes=1))
    assert (done["fetched"], done["unchecked"], list(done["failed"])) == (1, 1, ["till-1/b"])


@pytest.mark.parametrize("path", ["/../../evil", "/..", "/a/../../../evil", "\x00", "/a\\..\\b"])
def test_no_name_of_a_device_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    """Every file that is made is below it."""
    folder = tmp_path / "below" / "folder"
    pull(folder, Objects(), line("u1", path), line("u2", path))
    made = [one for one in tmp_path.rglob("*") if one.is_file()]
    assert len(made) == 2
    assert all(one.is_relative_to(folder / "till-1") for one in made)


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    """Neither of a folder nor of a file."""
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    (folder / "till-2").mkdir(parents=True)
    (folder / "till-1").symlink_to(outside)
    (folder / "till-2/a").symlink_to(outside / "a")
    unfinished = folder / unfinished_place("till-2/b")
    unfinished.parent.mkdir()
    unfinished.symlink_to(outside / "b")
    done = pull(folder, Objects(), line("u1", "/a"), *(line("u1", path, "till-2") for path in ("/a", "/b")))
    assert sorted(done["failed"]) == ["till-1/a", "till-2/a", "till-2/b"]
    assert list(outside.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    """A file has its name."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Failed, match="file"):
        pull(tmp_path / "file", Objects())
