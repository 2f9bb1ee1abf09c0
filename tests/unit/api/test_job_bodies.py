"""The body of a job: what is accepted, and that each refusal is one sentence that names the member.

Rule: no service; the models alone.
"""

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from control_plane.api.jobs import examples
from control_plane.api.jobs.bodies import NewJob
from control_plane.domain.errors import BadText
from control_plane.domain.jobs.spec import Approval, JobSpec, Rate, Window

NOW = 1_761_991_200.0
"""2025-11-01T10:00:00Z."""


def spec_of(**members: Any) -> JobSpec:  # noqa: ANN401 - JSON
    """The specification of the smallest job with these members."""
    return NewJob.model_validate({**copy.deepcopy(examples.SMALLEST_JOB), **members}).spec(NOW)


def test_two_members_are_a_whole_job() -> None:
    """Everything else has a default."""
    spec = NewJob.model_validate(examples.SMALLEST_JOB).spec(NOW)
    assert (spec.targets.clients, spec.files.paths) == (("restaurant-1",), ("/data/*.csv",))
    assert (spec.deadline, spec.zone, spec.key) == (7 * 86_400, "UTC", "{job}/{client_id}/{path}")


def test_the_whole_example_becomes_a_specification() -> None:
    """Sizes are bytes and durations seconds afterwards."""
    spec = NewJob.model_validate(examples.NEW_JOB).spec(NOW)
    assert (spec.files.newer_than, spec.files.max_size, spec.files.max_bytes) == (86_400, 50 * 2**20, 200 * 2**20)
    assert (spec.rollout.rate, spec.rollout.max_running) == (Rate(50, 60), 200)
    assert [stage.then for stage in spec.rollout.stages] == ["pause", "continue"]
    assert (spec.timeouts.listing, spec.timeouts.execution, spec.deadline) == (3600, 86_400, 36 * 3600)
    assert spec.windows == (Window("0 1 * * *", 3 * 3600, "device", "pause"),)
    assert spec.options.compression == "gzip"


def test_numbers_are_seconds_and_bytes() -> None:
    """The two spellings are the same job."""
    files = {"paths": ["/a"], "newer_than": 86_400, "max_size": 1024}
    text = {"paths": ["/a"], "newer_than": "24h", "max_size": "1KiB"}
    assert spec_of(files=files) == spec_of(files=text)


def test_a_slow_rate_is_a_text() -> None:
    """Less than one a minute."""
    assert spec_of(rollout={"per_minute": "1/20m"}).rollout.rate == Rate(1, 1200)


def test_approval_takes_a_word_or_limits() -> None:
    """Three modes."""
    assert spec_of(approval="always").approval == Approval("always")
    limits = {"bytes_over": "10GiB", "clients_over": 50}
    assert spec_of(approval=limits).approval == Approval("limits", 10 * 2**30, 50)


def test_a_deadline_may_be_an_instant() -> None:
    """It is kept as seconds from the creation."""
    at = datetime.fromtimestamp(NOW + 3600, UTC).isoformat()
    assert spec_of(deadline=at).deadline == 3600


@pytest.mark.parametrize(
    ("offset", "why"), [(-1, "deadline: has passed"), (31 * 86_400, "deadline: is more than 30 days")]
)
def test_an_instant_that_cannot_be_a_deadline_is_refused(offset: float, why: str) -> None:
    """In the past, or too far away."""
    at = datetime.fromtimestamp(NOW + offset, UTC).isoformat()
    with pytest.raises(BadText, match=why):
        spec_of(deadline=at)


@pytest.mark.parametrize(
    ("members", "place", "why"),
    [
        ({"targets": {}}, ("targets",), "names no client"),
        ({"targets": {"clients": ["a b"]}}, ("targets", "clients", 0), "is not allowed"),
        ({"targets": {"clients": ["a", "group:"]}}, ("targets", "clients", 1), "names no group"),
        ({"targets": {"clients": ["a*/"]}}, ("targets", "clients", 0), "no pattern of client ids"),
        ({"targets": {"client": ["a"]}}, ("targets", "client"), "Extra inputs"),
        ({"files": {}}, ("files",), "names no file"),
        ({"files": {"paths": ["/a"], "type": "logs"}}, ("files",), "takes one of them"),
        ({"files": {"paths": ["data/*.csv"]}}, ("files", "paths", 0), "is not absolute"),
        ({"files": {"paths": ["/data/../etc"]}}, ("files", "paths", 0), "holds .."),
        ({"files": {"paths": ["/data/{client_id}"]}}, ("files", "paths", 0), "may hold {tick}"),
        ({"files": {"paths": ["/a"], "newer_than": "1h", "older_than": "2h"}}, ("files",), "no file is older"),
        ({"files": {"paths": ["/a"], "min_size": "2MiB", "max_size": 1}}, ("files",), "min_size is more"),
        ({"files": {"paths": ["/a"], "min_files": 2, "max_files": 1}}, ("files",), "min_files is more"),
        ({"files": {"paths": ["/a"], "max_size": "5 potatoes"}}, ("files", "max_size"), "must be a size"),
        ({"files": {"paths": ["/a"], "max_files": 10_001}}, ("files", "max_files"), "less than or equal to 10000"),
        ({"key": "{job}/{path}"}, ("key",), "must hold {client_id}"),
        ({"key": "{client_id}/{path}/{colour}"}, ("key",), "unknown field {colour}"),
        ({"approval": "sometimes"}, ("approval", "mode"), "should be 'never' or 'always'"),
        ({"approval": {}}, ("approval", "limits"), "needs bytes_over"),
        ({"approval": {"colour": 1}}, ("approval", "limits", "colour"), "Extra inputs"),
        ({"rollout": {"per_minute": 0}}, ("rollout", "per_minute"), "must be a rate"),
        ({"rollout": {"stages": [{"percent": 50}]}}, ("rollout", "stages"), "must have percent 100"),
        ({"rollout": {"stages": [{"percent": 50}, {"percent": 5}]}}, ("rollout", "stages"), "a higher percent"),
        ({"abort": [{"on": "removed", "percent": 1}]}, ("abort", 0, "on"), "should be"),
        ({"retry": {"failed": 11}}, ("retry", "failed"), "less than or equal to 10"),
        ({"timeouts": {"listing": 0}}, ("timeouts", "listing"), "more than 0"),
        ({"deadline": "31d"}, ("deadline",), "at most 30 days"),
        ({"deadline": "tomorrow"}, ("deadline",), "must be a duration"),
        ({"zone": "Mars/Base"}, ("zone",), "no such time zone"),
        ({"zone": "../../etc/passwd"}, ("zone",), "no such time zone"),
        ({"windows": [{"cron": "0 0 31 2 *", "for": "1h"}]}, ("windows", 0, "cron"), "never fires"),
        ({"windows": [{"cron": "daily at 3", "for": "1h"}]}, ("windows", 0, "cron"), "five fields"),
        ({"windows": [{"cron": "0 1 * * *"}]}, ("windows", 0, "for"), "Field required"),
        ({"priority": 101}, ("priority",), "less than or equal to 100"),
        ({"job_id": "../x"}, ("job_id",), "must be 1 to 64"),
        ({"colour": 1}, ("colour",), "Extra inputs"),
    ],
)
def test_each_refusal_names_its_member(members: dict[str, Any], place: tuple[object, ...], why: str) -> None:
    """The first error is the one that is shown."""
    with pytest.raises(ValidationError) as refused:
        spec_of(**members)
    first = refused.value.errors()[0]
    assert first["loc"] == place
    assert why in first["msg"]


def test_of_many_wrong_clients_the_first_alone_is_described() -> None:
    """To describe each of those that a body has room for takes gigabytes."""
    with pytest.raises(ValidationError) as refused:
        spec_of(targets={"clients": ["a", *[0] * 1_000]})
    assert [error["loc"] for error in refused.value.errors()] == [("targets", "clients", 1)]
