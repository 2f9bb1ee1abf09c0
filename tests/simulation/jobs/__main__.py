"""Replay histories of jobs: `python -m tests.simulation.jobs --seed 7 --trace`, or many: `--from 0 --count 100`.

Rule: exit code 0 when everything held, 1 when something did not. `--without commit,dup` leaves faults out.
"""

import argparse
import sys
from collections import Counter

from tests.simulation.history import Failure
from tests.simulation.jobs.history import FAULTS, play_jobs


def main() -> int:
    """Play the histories that the options name."""
    options = _parser().parse_args()
    without = frozenset(filter(None, options.without.split(",")))
    seeds = range(options.start, options.start + options.count) if options.seed is None else [options.seed]
    ended, broken = Counter[str](), 0
    for seed in seeds:
        try:
            result = play_jobs(seed, without, traced=options.trace)
        except Failure as failure:
            broken += 1
            _write(failure.lines)
            _write([f"seed {seed}: {type(failure.__cause__).__name__}: {failure.__cause__}"])
        else:
            ended.update(result.executions)
            _write(result.lines)
    _write([f"{len(seeds)} histories, {broken} broken, executions: {dict(ended)}"])
    return 1 if broken else 0


def _write(lines: list[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.jobs", description="Replay histories of jobs.")
    parser.add_argument("--seed", type=int, help="this one history")
    parser.add_argument("--from", dest="start", type=int, default=0, help="the first of many")
    parser.add_argument("--count", type=int, default=20, help="how many")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--without", default="", help=f"faults to leave out, of {','.join(FAULTS)}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
