"""The request of a job as data.

Rule: what is stored is read back as the same request.
"""

import msgspec

from control_plane.domain.jobs.spec import AbortRule, FileQuery, JobSpec, Rate, Rollout, Stage, Targets, Window

SPEC = JobSpec(
    targets=Targets(clients=("till-*",), selector="site=berlin"),
    files=FileQuery(paths=("/data/*.csv",), max_size=50 * 2**20),
    rollout=Rollout(rate=Rate(1, 1200), stages=(Stage(1), Stage(100))),
    abort=(AbortRule("failed", 10),),
    windows=(Window("0 1 * * *", 3 * 3600),),
    metadata={"b": [1], "a": {"c": None}},
)


def test_a_stored_request_is_read_back_as_the_same() -> None:
    """JSON keeps all of it."""
    assert msgspec.json.decode(msgspec.json.encode(SPEC), type=JobSpec) == SPEC


def test_a_tick_in_the_key_or_in_a_path_is_seen() -> None:
    """It decides the defaults of a schedule."""
    assert not SPEC.uses_tick
    assert msgspec.structs.replace(SPEC, key="{tick}/{client_id}/{path}").uses_tick
    assert msgspec.structs.replace(SPEC, files=FileQuery(paths=("/data/{tick:%d}.csv",))).uses_tick
