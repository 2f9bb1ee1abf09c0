"""A device with bytes a day: it is granted what fits, its job waits for the next day and does not fail.

Rule: real control plane, real agent, real broker and S3 server.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.parts import MIB
from tests.support.midday import zone_at_midday
from tests.support.sites import Fleet, running_fleet

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

CLIENT = "till-1"
FILES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for number in range(FILES):
        (folder / f"{number}.log").write_bytes(bytes([number]) * MIB)
    return folder


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.attach(CLIENT, ALLOWED_ROOTS=str(folder), BYTES_PER_DAY=str(4 * MIB), TIMEZONE=zone_at_midday())
        yield fleet


def test_a_job_sends_what_fits_into_the_day_and_waits_for_the_next(fleet: Fleet, folder: Path) -> None:
    fleet.until(lambda: fleet.get(f"/clients/{CLIENT}")["budget"] is not None, "the report", 60)
    body = {
        "job_id": "logs",
        "targets": {"clients": [CLIENT]},
        "files": {"paths": [f"{folder}/*.log"], "max_bytes": "6MiB"},
    }
    forecast = fleet.post("/jobs?dry_run=true", body).json()["forecast"]
    assert (forecast["limited"], forecast["by_limit"], [one["clients"] for one in forecast["crossings"]]) == (1, 1, [1])
    assert fleet.post("/jobs", body).status_code == 201

    def waiting() -> bool:
        found = fleet.get(f"/uploads?client_id={CLIENT}")["uploads"]
        codes = [one["reason"]["code"] for one in found if one["status"] != "completed" and one["reason"]]
        return codes == ["device_budget"] * 2

    fleet.until(waiting, "four files, and two that wait", 120)
    done = [one for one in fleet.get(f"/uploads?client_id={CLIENT}")["uploads"] if one["status"] == "completed"]
    assert len(done) == 4
    (cap,) = fleet.get(f"/clients/{CLIENT}")["budget"]["caps"]
    assert (cap["period"], cap["cap"], cap["applies"]) == ("day", 4 * MIB, True)
    assert cap["used"] <= 4 * MIB
    assert fleet.get("/jobs/logs")["state"] == "running"
