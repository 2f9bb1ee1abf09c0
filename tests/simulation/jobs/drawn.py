"""Fleets and requests, drawn at random: what a history is about.

Rule: every choice comes from the world's generator. Numbers are small, so that limits, pages and stages are reached.
"""

from typing import Final

from control_plane.domain.jobs.spec import (
    AbortRule,
    Approval,
    FileQuery,
    JobSpec,
    Rate,
    Retry,
    Rollout,
    Stage,
    Targets,
    Timeouts,
)
from schemas.parts import MIB
from tests.simulation.broker import Broker
from tests.simulation.bucket import Bucket
from tests.simulation.jobs.devices import Behaviour, ModelDevice, ModelFile
from tests.simulation.world import World

SIZES: Final = (0, 1, 5000, 5000, 3 * MIB, 5 * MIB, 12 * MIB, 40 * MIB)
SITES: Final = ("berlin", "rome")
NEWEST: Final = 1_800_000_000 - 60
"""The instant (s) at which the newest file changed: a minute before the history begins."""

KEYS: Final = ("{job}/{client_id}/{path}", "{client_id}/{name}", "{client_id}/{tick:%Y}/{path}")


def draw_fleet(world: World, broker: Broker, bucket: Bucket) -> list[ModelDevice]:
    """A few devices with a few files each; which of them misbehave depends on the faults of the history."""
    chance = world.chance
    odd = [Behaviour.FAILS_ONCE, Behaviour.FAILS]
    odd += [Behaviour.SILENT] if "silent" in world.faults else []
    odd += [Behaviour.LIES] if "lying" in world.faults else []
    devices = []
    for number in range(1, chance.randint(3, 8)):
        files = [
            ModelFile(
                chance.choice(SIZES),
                f"/{chance.choice(['data', 'log'])}/{index}.{chance.choice(['bin', 'log'])}",
                (NEWEST - chance.randint(0, 30) * 3600) * 10**9,
                number * 1000 + index,
            )
            for index in range(chance.choice([0, 1, 2, 3, 5, 7, 12]))
        ]
        # Every device has a default file, to which the reference applies too.
        files = files or [ModelFile(1, "/data/default.txt", NEWEST * 10**9, number * 1000)]
        behaviour = chance.choice(odd) if chance.random() < 0.25 else Behaviour.HONEST
        labels = {"site": chance.choice(SITES)}
        devices.append(ModelDevice(world, broker, bucket, f"till-{number}", files, behaviour, labels))
    return devices


def draw_spec(world: World) -> JobSpec:
    """A request over that fleet."""
    chance = world.chance
    return JobSpec(
        targets=chance.choice(
            [
                Targets(clients=("*",)),
                Targets(clients=("*",)),
                Targets(clients=("till-1", "till-2")),
                Targets(selector="site=berlin"),
                Targets(selector="site=rome", clients=("till-1",)),
                Targets(clients=("till-*",), mode="continuous"),
            ]
        ),
        files=FileQuery(
            paths=chance.choice(
                [("/data/*.bin", "/data/*.log"), ("/data/*", "/log/*"), ("/*/*.log",), ("/data/*.bin", "/log/*.bin")]
            ),
            exclude=chance.choice([(), (), ("/log/1*",)]),
            newer_than=chance.choice([None, None, 12 * 3600.0]),
            min_size=chance.choice([None, None, 1]),
            max_size=chance.choice([None, None, 12 * MIB]),
            pick=chance.choice(["newest", "oldest", "largest", "smallest", "path"]),
            min_files=chance.choice([None, None, 1]),
            max_files=chance.choice([1000, 1, 3, 5]),
            max_bytes=chance.choice([None, None, 20 * MIB]),
            skip=chance.choice(["none", "none", "unchanged"]),
        ),
        key=chance.choice(KEYS),
        approval=chance.choice(
            [Approval(), Approval(), Approval("always"), Approval("limits", bytes_over=30 * MIB, clients_over=4)]
        ),
        rollout=Rollout(
            rate=chance.choice([None, None, Rate(6, 60.0)]),
            max_running=chance.choice([None, None, 1, 2]),
            stages=chance.choice(
                [(), (), (Stage(40.0, min=1, advance_at=50.0, advance_after=120.0), Stage(100.0, advance_after=60.0))]
            ),
        ),
        abort=chance.choice([(), (), (AbortRule("failed", 60.0, min_ended=2),)]),
        retry=Retry(failed=chance.choice([0, 1, 2]), timed_out=chance.choice([0, 1])),
        timeouts=Timeouts(listing=chance.choice([120.0, 600.0]), execution=chance.choice([None, 1800.0])),
        deadline=chance.choice([900.0, 3600.0, 7200.0]),
        running=chance.choice(["finish", "cancel"]),
    )
