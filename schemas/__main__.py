"""Write the generated documents: `python -m schemas [FOLDER]`.

Rule: the one module of this package that touches a disk, and only when a person runs it.
"""

import sys
from pathlib import Path
from typing import Final

from schemas.documents import documents

FOLDER: Final = Path(__file__).parent / "json"


def write(folder: Path = FOLDER) -> None:
    """Write every document, and remove what is none any more."""
    contents = documents()
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in contents:
            path.unlink()
    for name, content in contents.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:2]))
