"""Events are counted and logged, and no secret is in a line."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import boto3
import pytest
import structlog
from botocore.config import Config

from control_plane.domain.schedules.model import CellState
from control_plane.domain.uploads.model import State
from control_plane.gauges import FleetGauges
from control_plane.observability import LOGGER, Metrics, configure_logging, redact
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.ports.figures import Figures
from schemas.errors import SchemaError
from schemas.redaction import REDACTED
from schemas.topics import require_client_id
from tests.support.fakes import Rig

SIGNED = "https://s3.example/bucket/key?X-Amz-Credential=AKIA&X-Amz-Signature=c0ffee"


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def redacted(**facts: object) -> dict[str, Any]:
    return dict(redact(None, "info", dict(facts)))


class _Written(io.StringIO):
    """The stream of the log; what is read of it has all lines that were logged before."""

    def getvalue(self) -> str:
        for handler in logging.getLogger().handlers:
            handler.flush()
        return super().getvalue()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The log of the process; its logging is restored afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = _Written()
    monkeypatch.setattr("sys.stderr", written)
    configure_logging("INFO")
    yield written
    root.handlers[:], root.level = handlers, level
    logging.getLogger(LOGGER).setLevel(logging.NOTSET)
    structlog.reset_defaults()


def test_events_are_counted_by_name() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics("presence.stale", {"client_id": "a"})
    assert value(metrics, "backhaul_events_total", event="presence.stale") == 3


def test_uploads_are_counted_when_they_enter_a_state() -> None:
    metrics = Metrics()
    metrics("upload.state", {"was": "completing", "state": "completed", "error": None})
    metrics("upload.state", {"was": "in_progress", "state": "in_progress", "error": None})
    assert value(metrics, "backhaul_uploads_total", state="completed") == 1
    assert value(metrics, "backhaul_uploads_total", state="in_progress") == 0


def test_two_control_planes_do_not_count_together() -> None:
    one, other = Metrics(), Metrics()
    one("agent.hello", {})
    assert value(other, "backhaul_events_total", event="agent.hello") is None


def test_a_method_of_a_caller_is_no_label() -> None:
    metrics = Metrics()
    metrics.request("BREW", "unmatched", 405, 0.01)
    assert value(metrics, "backhaul_http_requests_total", method="other", route="unmatched", status="405") == 1
    assert b"BREW" not in metrics.render()


def test_a_fact_may_bear_any_name() -> None:
    metrics = Metrics()
    metrics(
        "event.shed", {"event": "PartsRequested", "level": "x", "timestamp": 1, "exc_info": "y", "self": 1, "logger": 2}
    )
    assert value(metrics, "backhaul_events_total", event="event.shed") == 1


LABELS = {
    "event", "state", "method", "route", "status", "outcome", "reason", "what", "neighbour", "version", "le",
    "implementation", "major", "minor", "patchlevel", "generation",
}  # fmt: skip
"""Those of Python's own metrics among them."""


async def gauges_of(rig: Rig, figures: Figures) -> FleetGauges:
    """Gauges over these figures."""

    class Database:
        async def read(self, _work: object) -> Figures:
            return figures

    fake: Any = Database()
    gauges = FleetGauges(fake, rig.clock, rig.messenger, rig.engine.probe)
    await gauges.refresh()
    return gauges


def test_no_label_names_a_client_or_anything_else_of_the_fleet() -> None:
    """Each event that a device or an operator can shape leaves none of its words in a label."""
    figures = Figures(
        executions={("queued", "canary-code"): 3, ("queued", "client_offline"): 4},
        held={"canary-code": 2, "budget_spent": 1, "canary-2": 5},
        coverage={"canary-schedule": {CellState.PROVEN: 3, CellState.MISSING: 1}},
    )

    async def gauges() -> FleetGauges:
        async with Rig() as rig:
            return await gauges_of(rig, figures)

    metrics = Metrics()
    metrics.show(asyncio.run(gauges()))
    ids = {"client_id": "canary", "upload_id": "canary", "job_id": "canary", "schedule_id": "canary", "webhook_id": "c"}
    done = {**ids, "was": "completing", "state": "completed", "error": None, "bytes": 12}
    metrics("upload.state", done)
    metrics("execution.state", {**ids, "was": "queued", "state": "failed", "reason": "canary-code"})
    metrics("job.state", {**ids, "was": "running", "state": "completed", "outcome": "all"})
    metrics("schedule.tick", {**ids, "status": "fired", "kind": "regular"})
    metrics("webhook.dead", ids)
    metrics("write.fenced", {"what": "canary"})
    text = metrics.render().decode()
    assert "canary" not in text
    assert {label for family in metrics.registry.collect() for one in family.samples for label in one.labels} <= LABELS
    assert value(metrics, "backhaul_upload_bytes_total") == 12
    assert value(metrics, "backhaul_executions_ended_total", outcome="failed", reason="other") == 1
    assert value(metrics, "backhaul_jobs_ended_total", state="completed") == 1
    assert value(metrics, "backhaul_schedule_ticks_total", outcome="fired") == 1
    assert value(metrics, "backhaul_webhook_deliveries_total", outcome="dead") == 1
    assert value(metrics, "backhaul_fenced_writes_total", what="other") == 1
    assert value(metrics, "backhaul_gate_waits", reason="other") == 7
    assert value(metrics, "backhaul_executions", state="queued", reason="client_offline") == 4
    assert value(metrics, "backhaul_schedule_coverage_ratio") == 0.75
    assert value(metrics, "backhaul_build_info", version=version("backhaul")) == 1


async def test_while_the_database_is_away_no_old_figure_is_shown() -> None:
    """Its neighbours are shown nevertheless."""
    async with Rig() as rig:

        class Broken:
            async def read(self, _work: object) -> Figures:
                text = "locked"
                raise DatabaseUnavailable(text)

        broken: Any = Broken()
        gauges = FleetGauges(broken, rig.clock, rig.messenger, rig.engine.probe)
        metrics = Metrics()
        metrics.show(gauges)
        await metrics.refresh()
        assert value(metrics, "backhaul_ready", neighbour="database") == 0
        assert value(metrics, "backhaul_ready", neighbour="broker") == 1
        assert value(metrics, "backhaul_jobs", state="running") is None


async def test_the_age_of_the_oldest_upload_grows() -> None:
    async with Rig() as rig:
        now = rig.clock.now()
        figures = Figures(uploads={State.QUEUED: 1}, oldest={State.QUEUED: now - 50}, due_at=now - 7)
        metrics = Metrics()
        metrics.show(await gauges_of(rig, figures))
        assert value(metrics, "backhaul_oldest_waiting_seconds", state="queued") == 50
        assert value(metrics, "backhaul_outbox_late_seconds") == 7
        rig.clock.time += 3
        assert value(metrics, "backhaul_oldest_waiting_seconds", state="queued") == 53
        assert value(metrics, "backhaul_oldest_waiting_seconds", state="in_progress") == 0


def test_credentials_are_not_logged() -> None:
    assert redacted(password="x", jwt_secret="x", Authorization="x", object_token="x") == dict.fromkeys(
        ("password", "jwt_secret", "Authorization", "object_token"), REDACTED
    )
    assert redacted(headers={"authorization": "Bearer x"})["headers"] == {"authorization": REDACTED}
    assert redacted(text="sent Bearer abc.def.ghi")["text"] == f"sent Bearer {REDACTED}"


def test_a_signed_url_loses_its_signature_and_keeps_its_path() -> None:
    expected = f"https://s3.example/bucket/key?{REDACTED}"
    assert redacted(url=SIGNED)["url"] == expected
    assert redacted(error=f"PUT {SIGNED} failed")["error"] == f"PUT {expected} failed"
    assert redacted(urls=[SIGNED, (SIGNED,)])["urls"] == [expected, [expected]]


def test_a_url_loses_its_credentials() -> None:
    assert redacted(database="postgresql://me:hunter2@db/x")["database"] == f"postgresql://{REDACTED}@db/x"


def test_other_facts_are_logged_unchanged() -> None:
    facts = {"event": "upload.state", "client_id": "a", "file_path": "/data/a?b=c", "state": "completed", "part": 3}
    assert redacted(**facts) == facts


def test_a_line_is_json_with_its_facts(lines: io.StringIO) -> None:
    Metrics()("upload.created", {"client_id": "a\x1b[2J\n", "url": SIGNED})
    line = json.loads(lines.getvalue())
    assert (line["event"], line["level"], line["client_id"]) == ("upload.created", "info", "a\x1b[2J\n")
    assert "c0ffee" not in lines.getvalue()
    assert len(lines.getvalue().splitlines()) == 1


def test_lines_of_libraries_are_redacted_too(lines: io.StringIO) -> None:
    logging.getLogger("botocore").warning("retrying %s", SIGNED)
    logging.getLogger("uvicorn.error").error("it broke", exc_info=RuntimeError(SIGNED))
    first, second = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert first["event"].startswith("retrying https://s3.example/bucket/key?[")
    assert "RuntimeError" in second["exception"]
    assert "c0ffee" not in lines.getvalue()


def test_a_fault_is_a_warning_with_its_traceback(lines: io.StringIO) -> None:
    with pytest.raises(SchemaError) as caught:
        require_client_id("at the bottom")
    Metrics()("request.failed", {"fault": caught.value})
    line = json.loads(lines.getvalue())
    assert line["level"] == "warning"
    assert "at the bottom" in line["exception"]
    assert "require_client_id" in line["exception"]


def test_lines_below_the_level_are_dropped(lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", lines)
    configure_logging("ERROR")
    Metrics()("upload.created", {})
    assert lines.getvalue() == ""


def test_at_debug_no_library_logs_what_signs_a_request(lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """At DEBUG botocore logs canonical requests and headers: what signs a URL is in them, in no URL."""
    monkeypatch.setattr("sys.stderr", lines)
    configure_logging("DEBUG")
    s3 = boto3.client(
        "s3",
        region_name="us-east-1",
        config=Config(signature_version="s3v4"),
        aws_access_key_id="AKIACANARY",
        aws_secret_access_key="canary",
        aws_session_token="canary-token",
    )
    url = s3.generate_presigned_url("put_object", Params={"Bucket": "b", "Key": "k"})
    structlog.get_logger(LOGGER).debug("our.own", url=url, canonical=url.partition("?")[2])
    [line] = lines.getvalue().splitlines()
    assert json.loads(line)["event"] == "our.own"
    assert "canary" not in line.lower()


def test_the_lines_about_one_client_are_limited_and_every_event_is_counted(lines: io.StringIO) -> None:
    """A device can cause as many events as it can send; a line for each would fill the disk and block the loop.

    Its work has a wider limit, and an event without a client has none.
    """
    now = [0.0]
    metrics = Metrics(monotonic=lambda: now[0])
    for _ in range(1_000):
        metrics("message.refused", {"client_id": "loud", "error": "x"})
    metrics("message.refused", {"client_id": "good", "error": "x"})
    for _ in range(200):
        metrics("upload.state", {"client_id": "loud", "was": "queued", "state": "dispatched"})
        metrics("outbox.failed", {"error": "x"})
    now[0] = 120.0
    metrics("message.refused", {"client_id": "loud", "error": "x"})
    written = [json.loads(line) for line in lines.getvalue().splitlines()]
    names = [(line["event"], line.get("client_id")) for line in written]
    assert names.count(("message.refused", "loud")) == 11
    assert names.count(("message.refused", "good")) == 1
    assert names.count(("upload.state", "loud")) == 200
    assert names.count(("outbox.failed", None)) == 200
    assert value(metrics, "backhaul_events_total", event="message.refused") == 1_002


def test_every_request_that_reads_a_file_has_its_line(lines: io.StringIO) -> None:
    """A caller that names the client could else read a thousand files behind ten lines."""
    metrics = Metrics(monotonic=lambda: 0.0)
    for number in range(50):
        metrics("rest.disclosure", {"caller": "alice", "path": f"/uploads/u{number}/url", "client_id": "restaurant-1"})
    assert lines.getvalue().count("rest.disclosure") == 50
