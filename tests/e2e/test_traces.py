"""One trace follows an upload through REST, the outbox, the device and the object store."""

import json
import os
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.support.collector import collecting
from tests.support.sites import MIB, running_fleet, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"
COMMAND = "publish fleet/v1/{client_id}/command"


def test_one_trace_leads_from_rest_to_the_object(tmp_path: Path) -> None:
    """Also through a restart in its middle: the trace is stored with the upload. The device runs no SDK."""
    files = tmp_path / "files"
    files.mkdir()
    path = files / "two-parts.bin"
    path.write_bytes(os.urandom(6 * MIB))
    with collecting() as collector:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        with running_fleet(tmp_path, settings) as fleet:
            agent = fleet.attach("restaurant-1", path, ALLOWED_ROOTS=str(files))
            agent.stop()
            fleet.until(lambda: not fleet.connected("restaurant-1"), "the agent to leave")
            answer = httpx.post(
                f"{fleet.site.server}/trigger-download/restaurant-1", headers={"traceparent": CALLER}, timeout=60
            )
            upload_id = answer.json()["upload_id"]
            fleet.until(lambda: "POST /trigger-download/{client_id}" in collector.names(TRACE), "the span of REST")
            fleet.site.plane.stop()
            plane = fleet.stack.enter_context(serve(fleet.site.directory, fleet.plane_settings))
            fleet.site = replace(fleet.site, plane=plane)
            fleet.until(fleet.ready, f"the control plane: {plane.log_tail()}")
            fleet.attach("restaurant-1", path, ALLOWED_ROOTS=str(files))
            upload = fleet.ended(upload_id)
            assert upload["state"] == "completed", upload
            wanted = {
                "command download_file",
                COMMAND,
                "device download_file",
                "store create_multipart",
                "command grant_parts",
                "store complete",
            }
            fleet.until(lambda: wanted <= collector.names(TRACE), f"{wanted - collector.names(TRACE)}")
            log = plane.log_path.read_text()
        spans = {one.span_id: one for one in collector.of(TRACE)}
        rest = next(one for one in spans.values() if one.name.startswith("POST /trigger"))
        assert rest.parent_span_id.hex() == "00f067aa0ba902b7"
        published = [one for one in spans.values() if one.name == COMMAND]
        assert {spans[one.parent_span_id].name for one in published} <= {
            "command download_file",
            "command grant_parts",
            "command close_upload",
        }
        reported = [one for one in spans.values() if one.name.startswith("device ")]
        assert {spans[one.parent_span_id].name for one in reported} == {COMMAND}
        assert all(one.end_time_unix_nano >= one.start_time_unix_nano for one in reported)
    lines = [json.loads(line) for line in log.splitlines() if f'"{upload_id}"' in line]
    states = [line for line in lines if line["event"] == "upload.state"]
    assert {line["trace_id"] for line in states} == {TRACE}


def test_without_a_collector_nothing_is_traced(tmp_path: Path) -> None:
    """And no message of the broker has a user property."""
    path = tmp_path / "small.bin"
    path.write_bytes(b"x" * 100)
    with running_fleet(tmp_path) as fleet:
        fleet.attach("restaurant-1", path)
        answer = httpx.post(
            f"{fleet.site.server}/trigger-download/restaurant-1", headers={"traceparent": CALLER}, timeout=60
        )
        assert fleet.ended(answer.json()["upload_id"])["state"] == "completed"
        assert "trace_id" not in fleet.site.plane.log_path.read_text()
