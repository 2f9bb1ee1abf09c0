"""Simulated devices for the tests of the page.

Rule: their traffic is real; only their files exist nowhere. They end with the block that started them.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from broker.child_process import ChildProcess
from tests.support.sites import Fleet

SIMULATE = (sys.executable, "-m", "control_plane.cli.main", "simulate", "--json")


@contextmanager
def simulated(site: Fleet, count: int, *options: str, name: str = "till-{}") -> Iterator[None]:
    """Connected devices `till-1` and so on, each with `/simulated/file.bin`; `options` are those of the command."""
    command = (
        *SIMULATE,
        "--devices",
        str(count),
        "--username",
        name,
        "--mqtt-url",
        site.site.broker.address.url,
        *options,
    )
    log = site.directory / f"devices-{name.format('n')}.log"
    with ChildProcess(command, log_path=log) as process:
        prefix = name.format("*")
        site.until(
            lambda: site.get(f"/clients?id={prefix}&state=connected&selector=")["count"] >= count,
            f"the devices {name}: {process.log_tail()}",
        )
        yield
