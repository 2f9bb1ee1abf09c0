"""Replay histories: `python -m tests.simulation --seed 7 --trace`, or many: `--from 0 --count 2000`.

Rule: exit code 0 when every promise held, 1 when one did not. `--without crash,dup` leaves faults out, and
`--shrink` leaves out every fault that the failure does not need.
"""

import argparse
import sys
from collections import Counter

from tests.simulation.history import Failure, History, play
from tests.simulation.world import FAULTS


def main() -> int:
    """Play the histories that the options name."""
    options = _parser().parse_args()
    without = frozenset(filter(None, options.without.split(",")))
    seeds = range(options.start, options.start + options.count) if options.seed is None else [options.seed]
    states: Counter[str] = Counter()
    broken = 0
    for seed in seeds:
        text = _broken(seed, without, states, traced=options.trace)
        if text is not None:
            broken += 1
            smaller = shrink(seed, without) if options.shrink else without
            more = f" --without {','.join(sorted(smaller))}" if smaller else ""
            write_line(f"seed {seed}: {text}\n    python -m tests.simulation --seed {seed} --trace{more}")
    write_line(f"{len(seeds)} histories, {broken} broken, uploads: {dict(states)}")
    return 1 if broken else 0


def shrink(seed: int, without: frozenset[str]) -> frozenset[str]:
    """Faults that can be left out while some promise still breaks, one after another."""
    for fault in FAULTS:
        fewer = without | {fault}
        if fault in History(seed, without).world.faults and _broken(seed, fewer, Counter()) is not None:
            without = fewer
    return without


def write_line(text: str) -> None:
    """Write to standard output."""
    sys.stdout.write(text + "\n")


def _broken(seed: int, without: frozenset[str], states: Counter[str], *, traced: bool = False) -> str | None:
    text: str | None = None
    try:
        result = play(seed, without, traced=traced)
    except Failure as failure:
        lines, text = failure.lines, f"{type(failure.__cause__).__name__}: {failure.__cause__}"
    else:
        states.update(result.states)
        lines = result.lines
    for line in lines:
        write_line(line)
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Replay seeded histories.")
    parser.add_argument("--seed", type=int, help="this one history")
    parser.add_argument("--from", dest="start", type=int, default=0, help="the first of many")
    parser.add_argument("--count", type=int, default=100, help="how many")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--without", default="", help=f"faults to leave out, of {','.join(FAULTS)}")
    parser.add_argument("--shrink", action="store_true", help="find the faults that matter")
    return parser


if __name__ == "__main__":
    sys.exit(main())
