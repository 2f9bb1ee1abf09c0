"""Skipped and missing tests fail a run of continuous integration (`CI=true`); elsewhere they are only listed.

Rule: a person's machine may lack a server; a run whose purpose is to use that server may not pass without it. The
exceptions are facts of a machine that no package changes, each by its reason.
"""

import os
import re
from collections.abc import Mapping
from typing import Final

import pytest

ALLOWED: Final[Mapping[str, str]] = {
    "this machine has no IPv6": "the kernel of a container host may be built or started without it",
    "this kernel has no openat2": "kernels before 5.6; the walk by component is tested there instead",
    "this system allows no loop mount": "a container may not use the loop devices of its host",
    "only root can act as another user": "a run may have a user of its own",
    "no network namespace can be made here": "a container may not change its network",
    "nothing can be mounted here": "a container may be denied every mount",
    "the root cannot be made read-only here": "a container may be denied every mount",
    "the packages that carry docker compose and kubectl are for Linux on x86_64": "no such packages exist elsewhere",
}
"""Reason of a skip that continuous integration accepts → why no package changes it."""

_OPTION: Final = "--at-least"


def ci() -> bool:
    """Whether this is a run of continuous integration, by the variable that such services set."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


class RequiredTests:
    """Counts the tests that ran, collects the skips, and fails the session in which they do not suffice.

    `at_least` is the number of tests that the suite must run, 0 for no demand.
    """

    def __init__(self, at_least: int) -> None:
        self._at_least = at_least
        self._ran = 0
        self._skips: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one phase of one test; with pytest-xdist this runs where the session is decided."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skips[report.nodeid] = _reason(report.longrepr)
        elif report.when == "call":
            self._ran += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Collect a module that skips itself while it is imported."""
        if report.skipped:
            self._skips[report.nodeid] = _reason(report.longrepr)

    def faults(self) -> list[str]:
        """One line for each skip that is not allowed, and one when too few tests ran."""
        lines = [f"skipped: {test}: {why}" for test, why in self._skips.items() if why not in ALLOWED]
        if self._ran < self._at_least:
            lines.append(f"{self._ran} tests ran, and this suite must run at least {self._at_least} ({_OPTION})")
        return lines

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a session that would pass into a failed one."""
        if self.faults() and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what failed the session."""
        if faults := self.faults():
            terminalreporter.section("continuous integration must run these tests")
            for line in faults:
                terminalreporter.line(line)


def add_option(parser: pytest.Parser) -> None:
    """Add `--at-least N`: how many tests the suite must run under `CI=true`."""
    parser.addoption(_OPTION, type=int, default=0, help="fail under CI=true when fewer tests than this ran")


def configure(config: pytest.Config) -> None:
    """Register the check in a run of continuous integration; a worker of pytest-xdist decides nothing."""
    if ci() and not hasattr(config, "workerinput"):
        config.pluginmanager.register(RequiredTests(config.getoption(_OPTION)))


def _reason(longrepr: object) -> str:
    # A skip's representation is (path, line, "Skipped: reason").
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return re.sub(r"^Skipped: ", "", text)
