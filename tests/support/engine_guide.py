"""Which commands of the documents are typed into containers, and which are typed on this machine.

Rule: a block of commands (`bash`) of a document is typed by exactly one test.
"""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
GUIDE: Final = ROOT / "docs/containers.md"
FIRST_TRY: Final = ROOT / "docs/how-to/docker.md"
_BLOCK: Final = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[str]:
    """The blocks of commands of a text."""
    return _BLOCK.findall(text)


def quick_start() -> list[str]:
    """Those of the first try with Docker."""
    return blocks(FIRST_TRY.read_text())


def guide() -> list[str]:
    """Those of docs/containers.md."""
    return blocks(GUIDE.read_text())
