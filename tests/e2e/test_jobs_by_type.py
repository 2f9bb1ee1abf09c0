"""A device that allows file types and nothing else: a job by type gets its files, a job by path is rejected.

Rule: real control plane, real agent, real broker and S3 server.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.sites import Fleet, running_fleet

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

CLIENT = "till-1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for number in range(3):
        (folder / f"{number}.csv").write_bytes(bytes(number + 1))
    (folder / "password").write_bytes(b"secret")
    return folder


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.attach(CLIENT, TYPES=f"sales={folder}/*.csv", TIMEZONE="Europe/Berlin")
        yield fleet


def ended(fleet: Fleet, files: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A job over the client, once it has ended, and its executions."""
    answer = fleet.post("/jobs", {"targets": {"clients": [CLIENT]}, "files": files})
    assert answer.status_code == 201, answer.text
    path = f"/jobs/{answer.json()['job_id']}"
    fleet.until(lambda: fleet.get(path)["state"] == "completed", "the job", 120)
    return fleet.get(path), fleet.get(f"{path}/executions")["executions"]


def test_a_job_by_type_gets_the_files_of_that_type(fleet: Fleet, folder: Path) -> None:
    job, [execution] = ended(fleet, {"type": "sales", "pick": "largest", "max_files": 2})
    assert (job["outcome"], execution["state"]) == ("all", "succeeded")
    files = fleet.get(f"/jobs/{job['job_id']}/files")["files"]
    assert sorted(file["path"] for file in files) == [f"{folder}/1.csv", f"{folder}/2.csv"]


def test_a_job_by_path_is_rejected_by_the_device_in_one_sentence(fleet: Fleet, folder: Path) -> None:
    job, [execution] = ended(fleet, {"paths": [f"{folder}/*"]})
    assert (job["outcome"], execution["state"]) == ("none", "rejected")
    assert "ALLOWED_ROOTS of this device, which has none" in execution["reason"]["text"]


def test_a_job_by_an_unknown_type_is_rejected_with_the_types_of_the_device(fleet: Fleet) -> None:
    _, [execution] = ended(fleet, {"type": "logs"})
    assert execution["state"] == "rejected"
    assert "no file type 'logs'; it has sales" in execution["reason"]["text"]
