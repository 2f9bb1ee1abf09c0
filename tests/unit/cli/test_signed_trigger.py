"""`trigger --sign` with an idempotency key: one upload, however often it is asked for.

Rule: the broker and the control plane are the test's; a command that is published is adopted at once.
"""

from pathlib import Path
from typing import Any, cast

import pytest

from control_plane.cli.errors import Failed, Misused, Refused
from control_plane.cli.mqtt import adoption
from control_plane.cli.mqtt.adoption import trigger_signed
from control_plane.cli.mqtt.request import UploadRequest
from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.rest.progress import Document
from schemas.signing.key_files import create_key

ASKED: dict[str, Any] = {"file_path": "/data/a", "metadata": {"order": "7"}}


class Fleet:
    """What was published, and the uploads that the control plane made of it."""

    server = "http://127.0.0.1:8080"

    def __init__(self) -> None:
        self.published: list[UploadRequest] = []
        self.uploads: dict[tuple[str, str], Document] = {}
        self.adopts = True

    async def publish(self, request: UploadRequest, _to: object, *, signed: bool) -> None:
        assert signed
        self.published.append(request)
        if self.adopts:
            self.uploads[request.client_id, request.upload_id] = {
                "upload_id": request.upload_id,
                "file_path": request.file_path or "/data/default",
                "metadata": dict(request.metadata),
                "after": None if request.after == "keep" else {"asked": request.after},
                "encrypt_to": list(request.options.encrypt_to),
            }

    def status(self, _client: str) -> Document:
        return {}

    def upload(self, upload_id: str, client: str) -> Document:
        if (client, upload_id) not in self.uploads:
            text = "no such upload"
            raise Refused(text, {"status": 404})
        return self.uploads[client, upload_id]

    def trigger(self, key: str | None = "k", client: str = "till-1", **changes: Any) -> str:  # noqa: ANN401
        """The id of the upload."""
        plane, body = cast("ControlPlane", self), {**ASKED, **changes}
        found: str = trigger_signed(plane, client, body, lambda _: None, key)["upload_id"]
        return found


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    made = Fleet()
    monkeypatch.chdir(tmp_path)
    for name in ("ana", "bob"):
        create_key(tmp_path / f"{name}.json")
    monkeypatch.setenv("OPERATOR_KEY_FILE", str(tmp_path / "ana.json"))
    monkeypatch.setattr(adoption, "publish_download", made.publish)
    return made


def test_the_same_key_is_the_same_upload_and_publishes_one_command(fleet: Fleet) -> None:
    assert fleet.trigger() == fleet.trigger()
    assert len(fleet.published) == 1


def test_what_was_not_adopted_is_asked_for_again_as_the_same_upload(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device may have the first command: it sends the file once."""
    fleet.adopts = False
    monkeypatch.setattr(adoption, "ADOPTION", 0.0)
    with pytest.raises(Failed, match="not adopted"):
        fleet.trigger()
    fleet.adopts = True
    assert fleet.trigger() == fleet.published[0].upload_id == fleet.published[1].upload_id


def test_another_key_client_or_person_asks_for_another_upload(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [fleet.trigger(), fleet.trigger("l"), fleet.trigger(client="till-2"), *(fleet.trigger(None) for _ in "12")]
    monkeypatch.setenv("OPERATOR_KEY_FILE", str(Path.cwd() / "bob.json"))
    assert len({*found, fleet.trigger()}) == 6
    assert len(fleet.published) == 6


@pytest.mark.parametrize(
    "change",
    [{"file_path": "/data/b"}, {"metadata": {}}, {"after": "delete"}],
    ids=["another file", "other metadata", "another act"],
)
def test_a_key_that_was_used_for_something_else_is_refused(fleet: Fleet, change: dict[str, Any]) -> None:
    fleet.trigger()
    with pytest.raises(Misused, match="idempotency-key"):
        fleet.trigger(**change)
    assert len(fleet.published) == 1


def test_the_default_file_of_the_client_is_no_other_one(fleet: Fleet) -> None:
    assert fleet.trigger(file_path=None) == fleet.trigger(file_path=None)
