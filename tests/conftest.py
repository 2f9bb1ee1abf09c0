"""What every test shares: Hypothesis profiles, and skips that say what this machine lacks.

Rule: nothing of the domain here. Servers and links live in `tests.support`, their fixtures beside the tests.
"""

import functools
import gc
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from tests.support import required_tests, scheduling

# A failure must be the same failure on the next run and the next machine; `explore` is for looking for new ones.
# None fails because the machine is slow: neither a deadline nor a limit on the time in which examples are made.
settings.register_profile(
    "ci", derandomize=True, print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("quick", settings.get_profile("ci"), max_examples=25)
settings.register_profile("explore", max_examples=2_000, print_blob=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# A shell without job control starts `make test &` deaf to interrupts, and so would be every program that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@functools.cache
def docker_answers() -> bool:
    """Whether a Docker daemon can be reached; the client alone runs nothing."""
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=60, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@functools.cache
def chromium_installed() -> bool:
    """Whether the system has a Chromium; nothing is downloaded for a test."""
    return any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))


@functools.cache
def postgres_installed() -> bool:
    """Whether a PostgreSQL server can be started; Debian keeps its programs off PATH."""
    return shutil.which("postgres") is not None or any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


NEEDS: Final[Mapping[str, tuple[Callable[[], bool], str]]] = {
    "containers": (docker_answers, "no Docker daemon answers"),
    "browser": (chromium_installed, "no Chromium is installed"),
    "postgres": (postgres_installed, "no PostgreSQL server is installed"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the project's suites."""
    required_tests.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Require under `CI=true` that nothing is skipped in silence."""
    required_tests.configure(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the soak, before `-m` selects. Files that take minutes first; the order is the same on every worker."""
    for item in items:
        is_fast = not any(item.get_closest_marker(name) for name in ("slow", *NEEDS, "chaos"))
        if scheduling.is_soak(item.path, config.rootpath, is_fast=is_fast):
            item.add_marker("soak")
    items.sort(key=lambda item: scheduling.place(item.path, config.rootpath))


def pytest_collection_finish() -> None:
    """Modules and tests stay until the end: the collector need not look at them again (an eighth of the time)."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose neighbour this machine does not have."""
    for marker, (present, reason) in NEEDS.items():
        if item.get_closest_marker(marker) is not None and not present():
            pytest.skip(reason)
