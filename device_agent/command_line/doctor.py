"""`backhaul-agent doctor`: examine this device, and show the findings.

Rule: as the agent's user, where root runs it. 0 when nothing is wrong, 1 otherwise.
"""

from argparse import Namespace

from device_agent.command_line.agent_user import become_the_agents_user
from device_agent.command_line.screen import DONE, FAILED, columns, show
from device_agent.diagnosis.doctor import examine
from device_agent.diagnosis.findings import as_json, shown
from device_agent.settings import Settings


def run_doctor(options: Namespace, settings: Settings) -> int:
    """Examine this device."""
    become_the_agents_user(settings.state_dir)
    findings = list(examine(settings, options.put))
    show(as_json(findings) if options.json else shown(findings, columns()))
    return DONE if all(one.fine for one in findings) else FAILED
