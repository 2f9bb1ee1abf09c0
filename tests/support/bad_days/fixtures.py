"""An agent of a fault site on a bad day.

Rule: it is the site's agent with other settings; it ends with the site.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from device_agent.local.model import LocalStatus
from device_agent.local.reader import NoAnswer, NotRunning, read_status
from tests.support.fault_sites import FaultSite, SiteProcess

IMPATIENT: Final = (sys.executable, "-m", "tests.support.bad_days.impatient_agent")
PAUSE: Final = "0.4"
"""Seconds of the longest pause between two connections of an impatient agent: a minute in the product."""


def impatient(site: FaultSite, name: str, **settings: str) -> SiteProcess:
    """An agent with short pauses between its connections, not started yet."""
    agent = site.agent(name, **{"BAD_DAY_PAUSE": PAUSE, **settings})
    agent.command = IMPATIENT
    return agent


def logs(site: FaultSite, agent: SiteProcess, text: str) -> None:
    """Wait until the agent has logged a text."""
    site.until(lambda: agent.log_path.exists() and text in agent.log, f"the log line {text!r}")


def told(agent: SiteProcess) -> LocalStatus | None:
    """What `backhaul-agent status` reads; None while no agent answers."""
    with suppress(NotRunning, NoAnswer):
        return read_status([Path(agent.settings["STATE_DIR"])])
    return None


def waits_for_broker(site: FaultSite, agent: SiteProcess, reason: str) -> LocalStatus:
    """Wait until the agent's log and its status have this reason for being offline; the status."""
    logs(site, agent, reason)
    seen: list[LocalStatus] = []

    def shown() -> bool:
        status = told(agent)
        if status is None or status.broker.connected or reason not in (status.broker.last_error or ""):
            return False
        seen.append(status)
        return True

    site.until(shown, f"the status {reason!r}")
    return seen[0]


def calm(agent: SiteProcess) -> bool:
    """Whether it runs, is connected, and no line has a traceback: a bad day is no fault of the program."""
    status = told(agent)
    return status is not None and status.broker.connected and "Traceback" not in agent.log
