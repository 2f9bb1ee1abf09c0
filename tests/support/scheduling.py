"""When a test file is run: which files are handed to workers first, and which run in the soak alone.

Rule: names of files, no conditions. A file stays on one worker (`--dist loadfile`): without an order one that takes
minutes may begin last, and the other workers would wait for it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

LONG: Final = (
    "tests/packages/test_debian_systems.py",
    "tests/faults/test_crash_points.py",
    "tests/faults/test_simulation.py",
    "tests/e2e/test_conformance.py",
    "tests/faults/test_jobs_killed.py",
    "tests/faults/test_matrix_object_stores.py",
    "tests/faults/test_clocks.py",
    "tests/e2e/signed/test_a_fleet_is_moved.py",
    "tests/faults/test_jobs_thousand.py",
    "tests/faults/test_simulation_mutants.py",
    "tests/browser/test_rules.py",
    "tests/e2e/signed/test_signed_fleet.py",
    "tests/packages/test_debian_unit.py",
    "tests/packages/test_debian_emulated.py",
    "tests/faults/test_jobs_simulation.py",
    "tests/faults/test_presence_truth.py",
    "tests/faults/test_agent_memory.py",
    "tests/faults/test_jobs_crash_points.py",
    "tests/faults/test_ticks_killed.py",
    "tests/faults/test_two_planes_tick.py",
    "tests/faults/test_two_control_planes.py",
    "tests/faults/test_jobs_guarantees.py",
    "tests/faults/test_sealed.py",
    "tests/faults/bad_days/test_writes.py",
    "tests/security/secrets/test_canaries.py",
    "tests/docs/test_readme.py",
    "tests/e2e/test_cli_mqtt.py",
    "tests/e2e/test_cli_terminals.py",
    "tests/e2e/signed/test_operators_terminal.py",
    "tests/e2e/test_demo.py",
)
"""Files whose slow tests take a minute or more together, the longest first."""

SOAK: Final = frozenset(
    {
        "tests/e2e/test_containers_restarts.py",
        "tests/faults/test_crash_points.py",
        "tests/faults/test_jobs_crash_points.py",
        "tests/faults/test_jobs_killed.py",
        "tests/faults/test_jobs_simulation.py",
        "tests/faults/test_jobs_thousand.py",
        "tests/faults/test_simulation.py",
        "tests/faults/test_simulation_mutants.py",
        "tests/faults/test_ticks_killed.py",
    }
)
"""Files whose slow tests take minutes of processor time, at every point or seed: `make test-soak` alone runs them."""


def is_soak(path: Path, root: Path, *, is_fast: bool) -> bool:
    """Whether a test belongs to the soak alone; the fast tests of such a file run with the others."""
    return not is_fast and path.is_relative_to(root) and path.relative_to(root).as_posix() in SOAK


def place(path: Path, root: Path) -> int:
    """The place of a test's file among the others; those that are not listed keep their order, after the listed."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else ""
    return LONG.index(name) if name in LONG else len(LONG)


def missing(root: Path, names: Iterable[str] = LONG) -> list[str]:
    """The listed files that the project does not have."""
    return [name for name in names if not (root / name).is_file()]
