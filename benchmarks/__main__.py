"""`python -m benchmarks [NAME ...]`: run benchmarks, keep their results, print one table.

Rule: each runs alone on the machine; what fails does not stop the others, and makes the exit code 1.
"""

import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks import (
    agent,
    control_plane,
    fleet,
    grants,
    jobs,
    latency,
    leaks,
    package,
    page,
    presigning,
    reach,
    rest,
    sealing,
    selection,
    signing,
    streams,
    writes,
)
from benchmarks.figures import Report, show
from benchmarks.processes import allow_many_files

BENCHMARKS: Final[Mapping[str, Callable[..., Report]]] = {
    "agent": agent.uploads,
    "agent-life": agent.life,
    "agent-keys": agent.keys,
    "agent-rest": rest.rest,
    "agent-writes": writes.writes,
    "agent-package": package.package,
    "latency": latency.latency,
    "fleet": fleet.fleet,
    "presigning": presigning.presigning,
    "ingest": control_plane.ingest,
    "clients": control_plane.clients,
    "grants": grants.grants,
    "streams": streams.streams,
    "jobs": jobs.jobs,
    "jobs-large": jobs.large,
    "signing": signing.signing,
    "sealing": sealing.sealing,
    "selection": selection.selection,
    "page": page.page,
    "rest-reach": reach.reach,
    "leaks": leaks.leaks,
}
QUICK: Final[Mapping[str, Mapping[str, int]]] = {
    "agent": {"mebibytes": 128, "rounds": 1},
    "agent-life": {"uploads_done": 100},
    "agent-rest": {"seconds": 20},
    "agent-writes": {"rounds": 1},
    "fleet": {"devices": 1_000},
    "ingest": {"messages": 16_000},
    "clients": {"registered": 10_000},
    "grants": {"parts": 200},
    "streams": {"readers": 100, "seconds": 3},
    "jobs": {"devices": 200, "many_files": 50, "few_devices": 10},
    "jobs-large": {"executions": 5_000, "created": 1_000},
    "signing": {"signatures": 500},
    "sealing": {"mebibytes": 64, "rounds": 1},
    "selection": {"files": 20_000},
    "page": {"clients": 1_000, "uploading": 100, "rounds": 3},
    "rest-reach": {"clients": 2_000, "uploading": 100, "rounds": 20},
    "leaks": {"rounds": 1},
}
"""Smaller sizes, to see that everything runs; their figures are not kept."""


def main() -> int:
    """Run those that were named, or all."""
    parser = ArgumentParser(
        prog="python -m benchmarks", description="Measure Backhaul; results go to benchmarks/results/."
    )
    parser.add_argument(
        "names", nargs="*", choices=[*BENCHMARKS, []], help=f"of {', '.join(BENCHMARKS)}; all by default"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, and nothing is kept")
    given = parser.parse_args()
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    allow_many_files()
    reports: list[Report] = []
    failed = False
    for name in given.names or BENCHMARKS:
        sys.stderr.write(f"{name} ...\n")
        try:
            report = BENCHMARKS[name](**(QUICK.get(name, {}) if given.quick else {}))
        except Exception:  # noqa: BLE001 - the others are still worth running
            traceback.print_exc()
            failed = True
            continue
        if not given.quick:
            report.write()
        reports.append(report)
    show(reports)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
