"""The dashboard and the alert rules name metrics that exist, with labels that they have; each rule fires."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from device_agent.watching.figures import METRICS, PREFIX
from tests.docs.generated import plane_metrics

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "grafana"
_METRIC: Final = re.compile(r"\b(backhaul_[a-z0-9_]+)(?:\{([^}]*)\})?")
_BY: Final = re.compile(r"\bby \(([^)]*)\)")
_OF_SCRAPES: Final = {"instance", "job", "le"}


def rules() -> list[dict[str, Any]]:
    """Every alert rule."""
    document = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Every panel that shows something."""
    found: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Each PromQL expression of both."""
    for rule in rules():
        yield rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]


def known() -> dict[str, set[str]]:
    """The labels of each series, by its name."""
    found = {name: set(labels) for name, _, labels, _ in plane_metrics()}
    found |= {f"{PREFIX}{one.name}": set(one.labels) for one in METRICS}
    found["backhaul_http_request_seconds_bucket"] = {"route", "le"}
    return found


def test_every_metric_that_they_name_exists_with_its_labels() -> None:
    metrics = known()
    asked = list(expressions())
    assert len(asked) > 25
    for expression in asked:
        names = _METRIC.findall(expression)
        assert names, expression
        for name, matchers in names:
            assert name in metrics, f"{name} in {expression}"
            used = set(re.findall(r"(\w+)\s*[=!]~?", matchers))
            grouped = {one.strip() for group in _BY.findall(expression) for one in group.split(",")}
            assert used | grouped <= metrics[name] | _OF_SCRAPES, expression


def test_each_symptom_has_a_rule_with_a_remedy() -> None:
    text = " ".join(rule["expr"] for rule in rules())
    for name in (
        "backhaul_oldest_waiting_seconds",
        "backhaul_schedule_coverage_ratio",
        "backhaul_webhook_deliveries_open",
        "backhaul_fenced_writes_total",
        "backhaul_agent_disk_free_bytes",
        "backhaul_ready",
        "device.alarm|audit.broken|keys.failed|keys.unlisted",
    ):
        assert name in text
    assert all(rule["annotations"].keys() == {"summary", "remedy"} for rule in rules())


def test_each_rule_is_tested() -> None:
    text = (FOLDER / "alerts_test.yml").read_text()
    assert {rule["alert"] for rule in rules()} == set(re.findall(r"alertname: (\w+)", text))


def test_the_panels_have_titles_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert panel["title"]
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.slow
def test_promtool_accepts_the_rules_and_each_fires() -> None:
    """On its symptom, and not on a healthy fleet."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: run `apt-get install prometheus`")
    for command in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        done = subprocess.run([promtool, *command], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
