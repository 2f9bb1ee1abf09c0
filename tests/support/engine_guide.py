"""Which commands of the README and of docs/containers.md are typed into containers, and which are not.

Rule: a block of the README is typed by exactly one of two tests, by the section in which it stands.
"""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
GUIDE: Final = ROOT / "docs/containers.md"
_BLOCK: Final = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SECTION: Final = re.compile(r"^## Quick start with Docker\n.*?(?=^## )", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[str]:
    """The blocks of commands of a text."""
    return _BLOCK.findall(text)


def quick_start() -> list[str]:
    """Those of the README's section on Docker."""
    (section,) = _SECTION.findall(README.read_text())
    return blocks(section)


def without_docker() -> list[str]:
    """Those of the rest of the README."""
    return blocks(_SECTION.sub("", README.read_text()))


def guide() -> list[str]:
    """Those of docs/containers.md."""
    return blocks(GUIDE.read_text())
