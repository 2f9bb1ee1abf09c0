"""The spans of an upload: what is traced, what a device may add, and what nothing costs."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from control_plane.adapters.traces import OtelTracer
from control_plane.domain.uploads.duties import Kind
from control_plane.services.ports.tracing import NoTraces
from control_plane.services.tracing import MAX_AT_ONCE, DeviceSpans, duty_span, job_trace, publish_span, trace_id_of
from schemas.messages import Response, UploadReport
from schemas.topics import Topics
from schemas.values import Action, ResponseStatus
from tests.support.databases import an_upload
from tests.support.fakes import Rig

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
FOREIGN = "00-11111111111111111111111111111111-2222222222222222-01"


class Kept(SpanProcessor):
    """Keeps the finished spans; takes no lock, as nothing may on the event loop."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@pytest.fixture
def kept() -> Kept:
    """Where the spans end."""
    return Kept()


@pytest.fixture
def tracer(kept: Kept) -> Iterator[OtelTracer]:
    """A tracer, made outside of the event loop as the server makes it."""
    made = OtelTracer(kept, "1.0")
    yield made
    made.close()


def named(kept: Kept) -> dict[str, ReadableSpan]:
    """The finished spans by name."""
    return {span.name: span for span in kept.spans}


def response(upload_id: str, **more: Any) -> Response:  # noqa: ANN401
    return Response("m", Action.DOWNLOAD_FILE, ResponseStatus.SUCCESS, UploadReport(upload_id=upload_id), **more)


def test_a_duty_and_its_publication_are_of_the_uploads_trace(tracer: OtelTracer, kept: Kept) -> None:
    upload = an_upload(traceparent=PARENT)
    with duty_span(tracer, upload, Kind.SEND_DOWNLOAD), publish_span(tracer, Topics(), upload.client_id, 9):
        inside = tracer.current()
    assert tracer.current() is None
    spans = named(kept)
    duty, publish = spans["command download_file"], spans["publish fleet/v1/{client_id}/command"]
    assert trace_id_of(inside) == TRACE
    assert duty.context is not None
    assert f"{duty.context.trace_id:032x}" == TRACE
    assert publish.parent is not None
    assert publish.parent.span_id == duty.context.span_id
    assert publish.attributes is not None
    assert publish.attributes["messaging.system"] == "mqtt"
    assert duty.attributes is not None
    assert duty.attributes["backhaul.upload_id"] == upload.upload_id


def test_an_upload_without_a_trace_has_no_span(tracer: OtelTracer, kept: Kept) -> None:
    with duty_span(tracer, an_upload(), Kind.COMPLETE), publish_span(tracer, Topics(), "restaurant-1", 9):
        assert tracer.current() is None
    assert kept.spans == []


def test_an_upload_of_a_job_begins_a_trace_of_its_own(tracer: OtelTracer, kept: Kept) -> None:
    one, other = (job_trace(tracer, "job-1", "restaurant-1", upload_id) for upload_id in ("a", "b"))
    assert trace_id_of(one) != trace_id_of(other)
    assert [span.name for span in kept.spans] == ["job upload", "job upload"]
    assert job_trace(NoTraces(), "job-1", "restaurant-1", "a") is None


async def test_a_device_adds_spans_to_the_trace_of_its_own_upload_only(tracer: OtelTracer, kept: Kept) -> None:
    """What it sends is checked against the stored trace; a text that is no context is ignored."""
    async with Rig() as rig:
        upload = an_upload(traceparent=PARENT)
        await rig.database.write(lambda records: records.uploads.add(upload))
        spans = DeviceSpans(tracer, rig.database, rig.clock)
        spans.published(PARENT)
        rig.clock.time += 5
        for echoed in (FOREIGN, "garbage", None, PARENT):
            spans.responded(upload.key, echoed, response(upload.upload_id))
        spans.responded(an_upload().key, PARENT, response("another"))
        await rig.settle()
        [span] = kept.spans
    assert span.name == "device download_file"
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == 5_000_000_000
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE


async def test_a_flood_of_responses_makes_a_bounded_number_of_tasks(tracer: OtelTracer, kept: Kept) -> None:
    async with Rig() as rig:
        spans = DeviceSpans(tracer, rig.database, rig.clock)
        upload = an_upload(traceparent=PARENT)
        await rig.database.write(lambda records: records.uploads.add(upload))
        for _ in range(3 * MAX_AT_ONCE):
            spans.responded(upload.key, PARENT, response(upload.upload_id))
        await rig.settle()
        assert len(kept.spans) == MAX_AT_ONCE


@pytest.mark.parametrize(
    "text", [None, "", "00-abc", f"{PARENT}x", PARENT.upper().replace("00-", "ff-"), PARENT + "\n", "x" * 10_000]
)
def test_a_text_that_is_no_context_names_no_trace(text: str | None) -> None:
    assert trace_id_of(text) is None
