"""Looks at this device as the agent's user does.

Rule: root reads everything and the agent does not, so nothing is concluded from what root sees.
"""

import os
import pwd
from contextlib import suppress
from pathlib import Path

from device_agent.command_line.screen import complain


def become_the_agents_user(state_dir: Path) -> str:
    """Act as the owner of the state folder, which is the agent's user, where this process is root's; its name."""
    owner = os.geteuid()
    with suppress(OSError):
        owner = state_dir.stat().st_uid
    try:
        entry = pwd.getpwuid(owner)
        name, group = entry.pw_name, entry.pw_gid
    except KeyError:
        name, group = str(owner), owner
    if os.geteuid() == 0 and owner != 0:
        os.setgroups(os.getgrouplist(name, group))
        os.setgid(group)
        os.setuid(owner)
    elif owner != os.geteuid():
        complain(f"the agent's user is {name}: as another user this answer may be wrong; try sudo")
    return name
