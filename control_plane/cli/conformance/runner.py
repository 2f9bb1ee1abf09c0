"""Runs checks on a bench, one after the other.

Rule: a finding ends its check and no other. Before each check the agent has to be connected.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from control_plane.cli.conformance.bench.findings import NotApplicable, Wrong
from control_plane.cli.conformance.bench.site import RECONNECT, Bench
from control_plane.cli.conformance.bench.transcript import Connected
from control_plane.cli.conformance.catalogue import CATALOGUE, Check
from control_plane.cli.errors import Misused, Unreachable

_LONGEST: Final = 600.0
"""Seconds that one check may take in all."""


class CheckVerdict(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check and its end. `expected` and `seen` belong to a failure, `reason` to a check that was skipped."""

    check: Check
    verdict: CheckVerdict
    seconds: float
    expected: str | None = None
    seen: str | None = None
    reason: str | None = None


def chosen(only: Sequence[str]) -> list[Check]:
    """The checks whose id is one of `only`, or begins with one of them and a dot; all without any. `Misused`."""
    for name in only:
        if not any(_matches(check, name) for check in CATALOGUE):
            text = f"--only {name}: no such check; --list shows all"
            raise Misused(text)
    found = [check for check in CATALOGUE if not only or any(_matches(check, name) for name in only)]
    return sorted(found, key=lambda check: check.last)


def _matches(check: Check, name: str) -> bool:
    return check.identifier == name or check.identifier.startswith(f"{name}.")


async def run_checks(
    bench: Bench, checks: Iterable[Check], *, arrival: float, on_result: Callable[[CheckResult], None]
) -> list[CheckResult]:
    """Run the checks; `Unreachable` when the agent does not connect within `arrival` seconds."""
    if not await bench.transcript.until(lambda: _arrived(bench), arrival) or not any(bench.transcript.of(Connected)):
        why = bench.program.ended() if bench.program is not None else None
        text = why or f"the agent did not connect within {arrival:g} s"
        raise Unreachable(text)
    results = []
    await bench.online()
    for check in checks:
        result = await _run(bench, check)
        on_result(result)
        results.append(result)
    return results


def _arrived(bench: Bench) -> bool:
    return any(bench.transcript.of(Connected)) or (bench.program is not None and bench.program.ended() is not None)


async def _run(bench: Bench, check: Check) -> CheckResult:
    began = time.monotonic()

    def ended(verdict: CheckVerdict, **facts: str | None) -> CheckResult:
        return CheckResult(check, verdict, round(time.monotonic() - began, 3), **facts)

    reason = check.inapplicable(bench)
    if reason is not None:
        return ended(CheckVerdict.SKIPPED, reason=reason)
    try:
        async with asyncio.timeout(_LONGEST):
            await _connected(bench)
            await check.body(bench)
    except NotApplicable as error:
        return ended(CheckVerdict.SKIPPED, reason=str(error))
    except Wrong as error:
        seen = bench.program.ended() if bench.program is not None else None
        return ended(CheckVerdict.FAILED, expected=error.expected, seen=seen or error.seen)
    except TimeoutError:
        return ended(CheckVerdict.FAILED, expected=f"an end within {_LONGEST:g} s", seen="none")
    finally:
        await bench.clear()
    return ended(CheckVerdict.PASSED)


async def _connected(bench: Bench) -> None:
    """Wait for the agent; where the kit started it and its process is over, start it again."""
    if bench.program is not None and bench.program.ended() is not None:
        bench.program.start()
    if not await bench.transcript.until(lambda: bench.connection, max(bench.patience, RECONNECT)):
        expected = "a connected agent"
        raise Wrong(expected, f"none within {max(bench.patience, RECONNECT):g} s")
    if bench.presence:
        await bench.online()
