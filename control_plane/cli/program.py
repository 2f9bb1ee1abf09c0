"""How this program is called from a shell, for every command that it prints to be copied.

Rule: the printed command works in any shell of this user, also in one with another PATH than this process: `make`
and an activated environment change it. A value in it (an id, a name, a path) is quoted here, and is never taken for an
option.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broker.child_process import python_program

_MAIN: Final = "control_plane.cli.main"


def program() -> str:
    """The command line that calls this program: its path, unless it is installed for every user."""
    path = Path(sys.argv[0])
    if path.name != "backhaul":
        return shlex.join(python_program(_MAIN))
    everyones = f"/usr/local/bin:{os.confstr('CS_PATH') or ''}"
    found = shutil.which("backhaul", path=everyones)
    return "backhaul" if found and Path(found).resolve() == path.resolve() else shlex.quote(str(path.absolute()))


def command_line(*words: str, about: Sequence[str] = ()) -> str:
    """A line that calls this program: `words` are its verbs and options, `about` the arguments, such as ids and paths.

    The arguments are last, and after `--` where one of them begins with `-`: it would be taken for an option.
    """
    hyphens = ("--",) if any(word.startswith("-") for word in about) else ()
    return f"{program()} {shlex.join((*words, *hyphens, *about))}"
