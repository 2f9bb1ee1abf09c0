"""How an upload is shown: one document for REST and the command line, progress by bytes, instants in UTC."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane import presentation
from control_plane.cli.mqtt.device_keys import DeviceKeys
from control_plane.cli.mqtt.engine import Direct
from control_plane.cli.mqtt.run import until_over
from control_plane.cli.mqtt.verifying import DeviceGuard
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import PartRecord, Proof, State, Upload, UploadReceipt
from control_plane.presentation import Status, upload_document
from control_plane.services.ports.database import PARKED
from control_plane.services.uploads.views import UploadView
from schemas.parts import MIB, plan_parts
from tests.support.fake_services import NOW, FakeServices, an_upload, http_to, make_api

PART = 5 * MIB


def half_done(**changes: object) -> Upload:
    """12 MiB in three parts, of which the first is stored."""
    parts = {1: PartRecord("d", "e"), 2: PartRecord("d")}
    upload = an_upload(state=State.IN_PROGRESS, file_size=12 * MIB, part_size=PART, parts=parts)
    return replace(upload, **changes)


class Recorder:
    """A display that keeps the documents that it is given."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []

    def show(self, upload: dict[str, Any]) -> None:
        self.shown.append(upload)

    def note(self, text: str | None) -> None:
        raise AssertionError(text)


async def document_of_the_direct_cli(services: FakeServices) -> dict[str, Any]:
    """The last document that `backhaul mqtt` gives to its display, as it prints it with --json."""
    display, view = Recorder(), services.views["upload-1"]
    engine = SimpleNamespace(upload_service=services)
    guard = DeviceGuard(DeviceKeys(None, "fleet/v1"), view.upload.client_id, has_key=False)
    direct = cast("Direct", SimpleNamespace(engine=engine, guard=guard, check=lambda: None))
    await until_over(direct, view.upload.key, display)
    printed: dict[str, Any] = json.loads(json.dumps(display.shown[-1], default=str))
    return printed


async def document_of_rest(services: FakeServices) -> dict[str, Any]:
    async with http_to(make_api(services)) as http:
        document: dict[str, Any] = (await http.get("/uploads/upload-1")).json()
    return document


@pytest.mark.parametrize(
    ("upload", "progress"),
    [
        (half_done(state=State.CANCELLED, error="cancelled", message="by the operator"), 41.6),
        (half_done(state=State.COMPLETED, proof=Proof.ETAG, completed_at=NOW), 100.0),
        (half_done(state=State.EXPIRED, file_size=10_000_000, bytes_sent=9_996_000), 99.9),
        (an_upload(state=State.FAILED, error="file_not_found", metadata={"ü": [1, None]}), 0.0),
    ],
    ids=lambda value: value.state.value if isinstance(value, Upload) else "",
)
async def test_the_direct_cli_and_rest_show_the_same_document(upload: Upload, progress: float) -> None:
    services = FakeServices()
    reason = Reason(ReasonCode.CLIENT_OFFLINE, "the client is offline")
    services.views["upload-1"] = UploadView(upload, reason, NOW + 30)
    direct, rest = await asyncio.gather(document_of_the_direct_cli(services), document_of_rest(services))
    assert direct == rest
    assert direct["progress"] == progress
    assert (direct["reason"]["text"], direct["reason"]["code"]) == ("the client is offline", "client_offline")


def test_rest_has_the_members_of_the_document_and_no_others() -> None:
    rest = asyncio.run(document_of_rest(FakeServices()))
    assert list(upload_document(UploadView(an_upload(), None, None))) == list(rest)


@pytest.mark.parametrize("state", State)
def test_each_state_has_one_status(state: State) -> None:
    expected = {"dispatched": "in_progress", "completing": "in_progress", "rejected": "failed", "expired": "failed"}
    assert presentation.STATUS[state] == expected.get(state, state)


def test_status_and_state_filters_are_combined() -> None:
    assert presentation.states_of(None, None) is None
    assert presentation.states_of(Status.FAILED, None) == frozenset({State.FAILED, State.REJECTED, State.EXPIRED})
    assert presentation.states_of(Status.FAILED, State.EXPIRED) == frozenset({State.EXPIRED})
    assert presentation.states_of(Status.QUEUED, State.EXPIRED) == frozenset()


def test_before_the_first_offer_nothing_is_guessed() -> None:
    shown = upload_document(UploadView(an_upload(), None, None))
    assert (shown["progress"], shown["bytes_uploaded"], shown["completed_parts"]) == (0.0, 0, 0)
    assert (shown["total_parts"], shown["file_size"], shown["reason"]) == (None, None, None)


def test_progress_is_the_greater_of_stored_and_sent_bytes() -> None:
    assert presentation.bytes_uploaded(half_done()) == PART
    assert presentation.bytes_uploaded(half_done(bytes_sent=7 * MIB)) == 7 * MIB
    assert presentation.bytes_uploaded(half_done(bytes_sent=99 * MIB)) == 12 * MIB
    assert presentation.progress(half_done()) == 41.6


def test_the_last_part_is_shorter() -> None:
    assert presentation.bytes_uploaded(half_done(parts={3: PartRecord("d", "e")})) == 2 * MIB


def test_progress_is_rounded_down() -> None:
    almost = half_done(file_size=10_000_000, parts={}, bytes_sent=9_996_000)
    assert presentation.progress(almost) == 99.9


def test_a_completed_upload_shows_all_bytes_and_parts() -> None:
    shown = upload_document(UploadView(half_done(state=State.COMPLETED), None, None))
    assert (shown["progress"], shown["bytes_uploaded"]) == (100.0, 12 * MIB)
    assert (shown["completed_parts"], shown["total_parts"]) == (3, 3)
    empty = upload_document(UploadView(an_upload(state=State.COMPLETED, file_size=0, part_size=PART), None, None))
    assert (empty["progress"], empty["bytes_uploaded"], empty["completed_parts"]) == (100.0, 0, 1)


@pytest.mark.parametrize(
    ("receipt", "shown"),
    [
        (None, None),
        (UploadReceipt(NOW, asked=True), "awaited"),
        (UploadReceipt(NOW, envelope="{}", witness_key="k"), "control-plane"),
        (UploadReceipt(NOW, asked=True, refused="no", envelope="{}", witness_key="k"), "control-plane"),
        (UploadReceipt(NOW, asked=True, envelope="{}", witness_key="k", device_key="d"), "device"),
    ],
)
def test_an_upload_says_who_signed_its_receipt(receipt: UploadReceipt | None, shown: str | None) -> None:
    upload = half_done(state=State.COMPLETED, receipt=receipt)
    assert upload_document(UploadView(upload, None, None))["receipt"] == shown


@given(st.integers(0, 200 * MIB), st.sets(st.integers(1, 40)), st.integers(0, 2**40))
def test_bytes_agree_with_the_plan(file_size: int, numbers: set[int], bytes_sent: int) -> None:
    plan = plan_parts(file_size, PART)
    stored = {number for number in numbers if number in plan.numbers}
    upload = half_done(
        file_size=file_size, parts={number: PartRecord("d", "") for number in numbers}, bytes_sent=bytes_sent
    )
    assert presentation.bytes_uploaded(upload) == max(plan.size_of(stored), min(bytes_sent, file_size))
    assert 0 <= presentation.progress(upload) <= 100


def test_an_instant_that_never_comes_is_null() -> None:
    assert presentation.instant(PARKED) is None
    assert presentation.instant(None) is None
    assert presentation.instant(0) == "1970-01-01T00:00:00.000Z"
