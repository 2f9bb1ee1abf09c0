"""An agent of a fault site on a bad day.

Rule: it is the site's agent with other settings; it ends with the site.
"""

import sys
from typing import Final

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


def calm(agent: SiteProcess) -> bool:
    """Whether it runs and no line has a traceback: a bad day is no fault of the program."""
    return agent.alive and "Traceback" not in agent.log
